"""The paper's ablation, reproduced on pictures that are at hand, and written into docs/results.md.

    python benchmarks/results.py [--profile cpu|gpu] [--only TABLE]… [--budget SECONDS] [--plan] [--render]
                                 [--data FOLDER] [--work FOLDER] [--out FOLDER]

Prints its plan and the hours it will take first. Every run is a `distill` command in a process of its own; broken off,
the same command goes on where it stopped, and what is in OUT/results-PROFILE.json is not run again. With a budget no
run is begun that is not expected to end within it. --render writes the page from what is there.
"""

import argparse
import fcntl
import os
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ablation.cost import measure_cost
from ablation.experiments import STORES, Ablation, in_order, make_ablation
from ablation.ledger import Ledger, identity
from ablation.page import Chapter, write_page
from ablation.pool import Pool, make_bccd, make_carla
from ablation.profile import PROFILES, Profile
from ablation.recall import measure_labels
from ablation.summary import write_summary
from ablation.tasks import Task
from ablation.valid import settled
from ablation.work import perform
from parts import ROOT

from stages.bench.machine import this_machine


@dataclass(frozen=True, slots=True)
class Running:
    """A task that was begun: what it is built on is settled."""

    task: Task
    identity: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    parser.add_argument("--only", action="append", metavar="TABLE", help="fill this table (repeatable)")
    parser.add_argument("--seeds", type=int, help="fewer than the profile's")
    parser.add_argument("--budget", type=float, help="seconds for all of it")
    parser.add_argument("--plan", action="store_true", help="print the plan and leave")
    parser.add_argument("--render", action="store_true", help="write the page and leave")
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with carla/ and bccd/"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "results", help="folder of runs and stores")
    parser.add_argument("--out", type=Path, help="folder of results-PROFILE.json and results.md; docs/ if not given")
    arguments = parser.parse_args()

    profile, out = PROFILES[arguments.profile], arguments.out or ROOT / "docs"
    work = (arguments.work / profile.name).resolve()
    lock = only_one(work)
    pools = make_pools(arguments.data, work)
    ablation = make_ablation(pools, profile, work)
    unknown = set(arguments.only or ()) - {table.key for table in ablation.tables}
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(t.key for t in ablation.tables)}")
    if not arguments.render:
        ledger = Ledger.open(out / f"results-{profile.name}.json", this_machine().line)
        ledger.facts |= {"pools": {name: pool.facts for name, pool in pools.items()}}
        valid = settled(ablation.tasks, ledger)
        missing = [name for name in wanted(ablation, arguments.only, arguments.seeds) if name not in valid]
        todo = in_order(ablation.tasks, missing)
        print_plan([task for task in todo if not at_hand(task, valid, work)], ledger, profile)
        if arguments.plan:
            return
        run_all(todo, pools, profile, work, ledger, arguments.budget)
        ledger.facts["labels"] = {
            name: measure_labels(pools["carla"], work / name) for name in STORES.values() if (work / name).exists()
        }
        ledger.write()
        if "cost" not in ledger.facts:
            ledger.facts["cost"] = measure_cost(profile)
            ledger.write()
    chapters = [
        Chapter(each, found, make_ablation(pools, each, work), pools["carla"], work.with_name(each.name))
        for each in PROFILES.values()
        if (found := Ledger.read(out / f"results-{each.name}.json")) is not None
    ]
    write_page(out / "results.md", chapters)
    if arguments.out is None:
        summarise(chapters)
    lock.close()


def summarise(chapters: Sequence[Chapter]) -> None:
    """The first profile's rows into the README: they are of one machine."""
    first = chapters[0]
    results = {name: first.ledger.results[name] for name in settled(first.ablation.tasks, first.ledger)}
    table = next(table for table in first.ablation.tables if table.key == "distillation")
    shown = f"![AP50 by share of unlabelled pictures](docs/results-{first.profile.name}-unlabelled.png)"
    write_summary(ROOT / "README.md", table, results, shown)


def only_one(work: Path) -> IO[str]:
    """The lock of a work folder; ends the process where another one has it."""
    work.mkdir(parents=True, exist_ok=True)
    lock = (work / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"{work} is being worked in by another process; wait for it, or name another --work")
    os.set_inheritable(lock.fileno(), True)
    return lock


def make_pools(data: Path, work: Path) -> dict[str, Pool]:
    """The pictures, laid out anew every time: a second's work, and nothing stale."""
    folder = work / "pictures"
    shutil.rmtree(folder, ignore_errors=True)
    pools = {"carla": make_carla(data / "carla", folder / "carla"), "bccd": make_bccd(data / "bccd", folder / "bccd")}
    shutil.copyfile(ROOT / "demo" / "teacher.safetensors", folder / "bccd" / "teacher.safetensors")
    return pools


def wanted(ablation: Ablation, only: Sequence[str] | None, seeds: int | None) -> list[str]:
    """Names of the trainings behind the tables asked for."""
    tables = [table for table in ablation.tables if not only or table.key in only]
    return list({name: None for table in tables for row in table.rows for name in row.tasks[:seeds]})


def print_plan(left: Sequence[Task], ledger: Ledger, profile: Profile) -> None:
    """What is to do and how long it will take, by what was measured, else by the profile."""
    hours = sum(expected_seconds(task, ledger, profile) for task in left) / profile.jobs / 3600
    kinds = {kind: sum(task.kind == kind for task in left) for kind in dict.fromkeys(task.kind for task in left)}
    print(f"Machine: {ledger.machine}", flush=True)
    print(
        f"{len(left)} tasks to do ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}), {profile.jobs} at "
        f"once: about {hours:.1f} hours",
        flush=True,
    )
    for task in left:
        print(f"  {task.name}: {expected_seconds(task, ledger, profile):.0f} s", flush=True)


def expected_seconds(task: Task, ledger: Ledger, profile: Profile) -> float:
    """The median of what tasks of its kind took, else the profile's guess."""
    alike = [r["seconds"] for r in ledger.results.values() if r["kind"] == task.kind and r["pool"] == task.pool]
    student, teacher, store = profile.seconds
    guess = {"student": student, "teacher": teacher, "store": store, "pseudo": store, "merged": 6 * store}
    return statistics.median(alike) if alike else guess[task.kind]


def run_all(
    todo: Sequence[Task], pools: Mapping[str, Pool], profile: Profile, work: Path, ledger: Ledger, budget: float | None
) -> None:
    """Every task whose turn it is, `jobs` at once; a task whose result is there is passed over. A failed task is
    reported at the end, and so is what needs it."""
    began, done, failed = time.monotonic(), dict[str, str](), dict[str, str]()
    waiting, running = list(todo), dict[Future[None], Running]()

    def work_on(task: Task, key: str) -> None:
        result = perform(task, pools[task.pool], profile, work)
        said = {"kind": task.kind, "pool": task.pool, "identity": key, "command": task.command}
        ledger.put(task.name, said | result)

    with ThreadPoolExecutor(profile.jobs) as pool:
        while waiting or running:
            while waiting and len(running) < profile.jobs:
                task = next((t for t in waiting if all(name in done or name in failed for name in t.after)), None)
                if task is None:
                    break
                waiting.remove(task)
                missing = [name for name in task.after if name in failed]
                if missing:
                    failed[task.name] = f"needs {', '.join(missing)}"
                    continue
                key = identity(task.command, {name: done[name] for name in task.after})
                known = ledger.find(task.name, key)
                if known is not None and (work / task.name).exists():
                    done[task.name] = known["made"]
                    continue
                seconds = expected_seconds(task, ledger, profile)
                if budget is not None and time.monotonic() - began + seconds > budget:
                    failed[task.name] = f"left out: {seconds:.0f} s are expected, more than is left"
                    continue
                forget_stale(work / task.name, key)
                print(f"[{time.strftime('%H:%M:%S')}] {task.name}", flush=True)
                running[pool.submit(work_on, task, key)] = Running(task, key)
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future).task
                error = future.exception()
                if error is not None:
                    failed[task.name] = str(error)
                    print(f"{task.name} failed: {error}", flush=True)
                    continue
                result = ledger.results[task.name]
                done[task.name] = result["made"]
                ap = f", AP50 {result['test']['ap50']:.3f}" if "test" in result else ""
                print(f"[{time.strftime('%H:%M:%S')}] {task.name}: {result['seconds']:.0f} s{ap}", flush=True)
    if failed:
        print(
            "not done:\n" + "\n".join(f"  {name}: {why.splitlines()[-1]}" for name, why in failed.items()), flush=True
        )


def at_hand(task: Task, valid: Mapping[str, str], work: Path) -> bool:
    """Whether a task's result holds and what it made is still there, for others to build on."""
    return task.name in valid and (work / task.name).exists()


def forget_stale(path: Path, key: str) -> None:
    """Delete what a task of another identity left in this place."""
    mark = path.with_name(f"{path.name}.identity")
    if path.exists() and not (mark.exists() and mark.read_text() == key):
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(key)


if __name__ == "__main__":
    main()
