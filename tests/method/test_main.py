"""`python -m wsfcn_lib image`: scores on the screen, a picture of the masks, errors in one line."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from wsfcn_lib import WSFCN, NetConfig, segment
from wsfcn_lib.__main__ import main
from wsfcn_lib.checkpoints import save_snapshot
from wsfcn_lib.data.painting import edges, line_width
from wsfcn_lib.runs.paths import ROOT

CLASSES = [{"name": n, "mask_id": i, "colour": (90 * i, 9, 9)} for i, n in enumerate(("cat", "dog"), 1)]


@pytest.fixture
def snapshot(tmp_path):
    torch.manual_seed(0)
    net = WSFCN(NetConfig(backbone="tiny", width=16, dilations=(1, 2, 4, 6), num_classes=3))
    Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 20).convert("RGB").save(tmp_path / "moth.jpg")
    return save_snapshot(net, tmp_path / "net.safetensors", CLASSES, scales=(1.0,))


def test_it_prints_the_scores_and_writes_the_image_with_its_masks(snapshot, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    expected = segment("moth.jpg", snapshot)
    for options, output in ((["-o", "masks/out.png"], "masks/out.png"), ([], "moth_segmented.png")):
        monkeypatch.setattr(sys, "argv", ["wsfcn_lib", "moth.jpg", "--checkpoint", str(snapshot), *options])
        main()
        lines = capsys.readouterr().out.splitlines()
        for name, score, tag, line in zip(
            ("cat", "dog"), expected.scores, expected.tags, lines, strict=False
        ):
            assert line.split() == [f"{score:.3f}", name] + ["present"] * bool(tag)
        assert lines[-1].endswith(str(tmp_path / output))
        image = np.asarray(Image.open("moth.jpg"))
        written = np.asarray(Image.open(output))
        assert (written == np.asarray(expected.picture())).all()
        far = (expected.labels == 0) & ~edges(expected.labels, line_width(expected.labels.shape))
        assert (written[:40] == image).all(2)[far].all(), "background stays as photographed"


def test_an_error_is_one_line_and_exit_code_1(tmp_path):
    command = [sys.executable, "-m", "wsfcn_lib", str(tmp_path / "absent.jpg")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr.count("\n") == 1
        and "absent.jpg: no such picture or folder, neither where you are" in done.stderr
    )


def test_home_and_repository_are_known(snapshot, tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (["~/moth.jpg", "-o", "~/out.png"], ["../moth.jpg", "-o", "../out.png"]):
        monkeypatch.setattr(sys, "argv", ["wsfcn_lib", *given, "--checkpoint", "~/net.safetensors"])
        main()
        assert Image.open(tmp_path / "out.png").size[0] == 60
        (tmp_path / "out.png").unlink()
    monkeypatch.setattr("wsfcn_lib.runs.paths.ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["wsfcn_lib", "moth.jpg", "--checkpoint", "net.safetensors"])
    main()
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["moth_segmented.png"]


def test_another_ending_than_png_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wsfcn_lib", "absent.jpg", "-o", "out.jpg"])
    with pytest.raises(ValueError, match="out.jpg is written as PNG; name it .png"):
        main()


def test_a_folder_is_segmented_with_its_sub_folders_and_the_rest_is_counted(
    snapshot, tmp_path, monkeypatch, capsys
):
    own = tmp_path / "own"
    for name in ("a.jpg", "deep/a.jpg", "deep/B.PNG"):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 20).convert("RGB").save(own / name)
    (own / "notes.txt").write_text("x")
    (own / "torn.jpg").write_bytes(b"x")
    (own / "@eaDir").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wsfcn_lib", "own", "--checkpoint", str(snapshot)])
    main()
    text = capsys.readouterr().out
    files = {path.name for path in (tmp_path / "own_segmented").iterdir()}
    assert files == {"a_jpg.png", "deep__a_jpg.png", "B.png"}
    assert "3 pictures with their masks lie in" in text and "1 cannot be opened" in text
    assert "torn.jpg: not a readable picture" in text
    assert "not pictures, passed over: 1 system or hidden folder (@eaDir), 1 .txt (notes.txt)" in text
    for output in ("own", "own/results"):
        monkeypatch.setattr(sys, "argv", ["wsfcn_lib", "own", "-o", output])
        with pytest.raises(ValueError, match="name another folder for the results"):
            main()


def test_no_file_of_another_origin_is_replaced(snapshot, tmp_path, monkeypatch, capsys):
    """Neither the picture nor a mask under the name of the output; what the command drew itself is drawn anew."""
    monkeypatch.chdir(tmp_path)
    moth = Image.open("moth.jpg")
    masks = ["own.png", "own_segmented.png", "own_mask.png", "own/a.png", "own_masks/a.png", "results/a.png"]
    for name in masks:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        moth.save(name)
    before = {name: (tmp_path / name).read_bytes() for name in masks}

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["wsfcn_lib", *arguments, "--checkpoint", str(snapshot)])
        main()

    with pytest.raises(
        ValueError, match="own.png is the picture itself, which is never replaced; name another"
    ):
        run("own.png", "-o", "./own.png")
    for arguments in (["own.png"], ["own.png", "-o", "own_mask.png"], ["own", "-o", "results"]):
        with pytest.raises(ValueError, match="was not drawn by this kit; move it away, or name another"):
            run(*arguments)
    (tmp_path / "own_segmented.png").unlink()
    run("own.png")
    first = (tmp_path / "own_segmented.png").read_bytes()
    run("own.png")
    assert (tmp_path / "own_segmented.png").read_bytes() == first
    run("own")
    run("own")
    assert [path.name for path in (tmp_path / "own_segmented").iterdir()] == ["a.png"]
    del before["own_segmented.png"]
    assert before == {name: (tmp_path / name).read_bytes() for name in before}
    with pytest.raises(ValueError, match="own_segmented.png is the picture itself"):
        run("own_segmented.png", "-o", "own_segmented.png")
