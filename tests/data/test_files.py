"""Text files as people write them: lists of names, and tables."""

import re

import pytest

from wsfcn_lib.data.files import DataError, read_list, read_table, table_text


def test_a_list_is_read_as_people_write_it(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeff# the best\r\n\r\nb \r\na\r\nKühe 1\r\n".encode())
    assert read_list(path) == read_list(str(path)) == ["b", "a", "Kühe 1"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a\nb\na\n", r"it has 3 names, 2 of them different; write some, and each one once"),
        (b"# nothing\n\n", r"it has 0 names"),
        ("Kühe\n".encode("latin-1"), r"is not UTF-8 at .*; save it so"),
        (None, r"there is no such list; write image names into it, one a line, without their endings"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{re.escape(str(path))}.*{message}"):
        read_list(path)


def test_a_table_is_read_as_people_write_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffImage, TAGS,note\r\n"a,b.jpg", cat ; dog ,x\r\n\r\n,,\r\nc.jpg\r\n'.encode())
    columns, rows = read_table(path, ("image", "tags"))
    assert columns == ["image", "tags", "note"]
    assert rows == [
        (f"{path}, line 2", {"image": "a,b.jpg", "tags": "cat ; dog", "note": "x"}),
        (f"{path}, line 5", {"image": "c.jpg", "tags": "", "note": ""}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_spreadsheets_of_all_languages_write_tables(tmp_path, delimiter, coding):
    path = tmp_path / "t.csv"
    lines = ["image,tags", 'a.jpg,"cat;dog"', "Kühe.jpg,cow"]
    path.write_text("\r\n".join(lines).replace(",", delimiter), coding, newline="")
    assert [row for _, row in read_table(path, ("image", "tags"))[1]] == [
        {"image": "a.jpg", "tags": "cat;dog"},
        {"image": "Kühe.jpg", "tags": "cow"},
    ]


def test_what_is_written_is_read_again(tmp_path):
    path, names = tmp_path / "t.csv", ['my "best", 2', "two\nlines", "ä;b"]
    path.write_text(table_text(("name",), [{"name": name, "other": 1} for name in names]))
    assert [row["name"] for _, row in read_table(path, ("name",))[1]] == names


@pytest.mark.parametrize(
    "content, message",
    [
        ("", r"line 1 must name the columns image,tags with a comma between them, found \[\]"),
        ("image:tags\n", r"must name the columns image,tags .*, found \['image:tags'\]"),
        ("image,tags,Image\n", r"line 1 names the columns \['image'\] more than once; keep one of each"),
        ("image;tags\na;b;c\n", r"line 2: more cells than columns; put ',' between tags, not ';'"),
        ('image,tags\na,"b\n', r"not a whole CSV file, perhaps a quote is not closed"),
        ("image,tags\na,b,c\n", r"line 2: more cells than columns; put ';' between tags, not ','"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=f"t.csv.*{message}"):
        read_table(tmp_path / "t.csv", ("image", "tags"))


def test_a_name_in_a_list_ends_with_its_line_alone(tmp_path):
    """Not at other characters at which Python splits lines."""
    names = ["line\u2028sep", "\u0085nel", "form\x0cfeed", "b"]
    (tmp_path / "list.txt").write_text("\n".join(f"x{name}" for name in names) + "\n", "utf-8")
    assert read_list(tmp_path / "list.txt") == [f"x{name}" for name in names]
