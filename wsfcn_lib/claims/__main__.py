"""Write data/results/CLAIMS.md anew from what lies beside it: `make claims`."""

from wsfcn_lib.claims.costs import BENCH, bench_of
from wsfcn_lib.claims.evidence import RESULTS
from wsfcn_lib.claims.page import PAGE, page
from wsfcn_lib.runs.paths import use_utf8
from wsfcn_lib.runs.storage import atomic_write

if __name__ == "__main__":
    use_utf8()
    atomic_write(PAGE, page())
    print("written: data/results/CLAIMS.md")
    if not bench_of(RESULTS):
        print(
            f"it lacks hours: data/results/{BENCH} is missing; run `make bench` first, then `make claims` again"
        )
