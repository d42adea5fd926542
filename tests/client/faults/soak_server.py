"""The provider of the soak test, in a process of its own: three answers in ten go wrong, in forty ways.

Prints the addresses of two servers: one that fails in every way, and one that says it has too little capacity as well,
which slows its clients down. Refusals for the rate are left out: they would slow them down for minutes. Ends with its
standard input, and then prints how many requests there were.
"""

import asyncio
import random
import sys

from lm_deluge.simulator import Fault, Pace, Script, Simulator

FAULTS = [
    *("split_utf8", "invalid_utf8", "bom", "crlf", "comments", "multiline_data", "gzip", "truncated_gzip"),
    *("html_200", "not_json", "empty_body", "cut_chunk", "reset", "short_length", "empty_reply", "reset_first"),
    *("clean_truncation", "close_truncation", "close_delimited", "http_10", "no_done", "never_closes"),
    *("data_after_done", "bad_status_line", "redirect_other_origin", "duplicate_content_length", "no_answer"),
    *("silence", "bad_chunk_size", "unknown_encoding", "endless_pings;seconds=0.2", "plain_for_stream"),
    *("status_400", "status_401", "status_408", "status_500", "status_502", "error_html", "error_empty"),
    *("in_band_error_mid", "json_error_200;status=500", "in_band_error_first;status=500", "missing_usage"),
]
OF_CAPACITY = ["status_503", "status_529"]
SHARE = 0.3


def fault_list(kinds: list[str], count: int, chance: random.Random) -> list[Fault | None]:
    parsed = [Fault.parse(kind) for kind in kinds]
    return [chance.choice(parsed) if chance.random() < SHARE else None for _ in range(count)]


def script(request) -> Script:
    return Script(text=f"[{request.conversation[-1].completion}] is what was asked here.")


async def main(seed: int, count: int, tokens_per_second: float) -> None:
    chance = random.Random(seed)
    pace = Pace(tokens_per_second=tokens_per_second, jitter=0.5)
    usual = Simulator(script, faults=fault_list(FAULTS, count, chance), pace=pace)
    short_of_places = Simulator(script, faults=fault_list(FAULTS + OF_CAPACITY, count, chance), pace=pace)
    async with usual, short_of_places:
        print(usual.base_url, short_of_places.base_url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        stats = [usual.stats, short_of_places.stats]
    print(sum(each.requests for each in stats), len(stats[0].faults + stats[1].faults), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
