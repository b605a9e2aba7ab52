"""The reports of the campaign's command, from a whole made-up campaign."""

import math
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from synthetic import MODES, make_cell, simple_run
from test_campaign_agreement import RATES, alone, died, process
from test_campaign_run import record_of

from bench import store
from bench.errors import RecordError
from bench.records.runs import append_record, create_run, read_run
from campaign import __main__ as command
from campaign import figures, log, validation
from campaign.figures import FigureError
from campaign.plan import LOADED_RUN, PARTS, VALIDATED, VALIDATED_RUNS, VALIDATION_PARTS, find_part


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    """Return a checkout whose campaign has all its reference runs and validations, which agree."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # thousands of lines
    folder = tmp_path / log.FOLDER
    chance = np.random.default_rng(1)
    for name in (*VALIDATED_RUNS, LOADED_RUN):
        rates = {
            make_cell(workload, backend, MODES[backend][0]): [
                float(rate * math.exp(chance.normal(0, 0.02))) for _ in range(4)
            ]
            for workload in VALIDATED
            for backend, rate in RATES.items()
        }
        run = simple_run(rates)
        made = create_run(folder, run.header)
        for record in run.records:
            append_record(made, record)
        made.rename(folder / name)
        log.write_part(folder, record_of(find_part(name), "done"))
    processes = alone(chance)
    for number in range(1, VALIDATION_PARTS + 1):
        name = f"validation-{number}"
        log.write_part(folder, record_of(find_part(name), "done"))
        for one in processes[number - 1 :: VALIDATION_PARTS]:
            store.append(folder / name / validation.RECORDS, one)
    return tmp_path


def test_the_validation_is_written_from_all_its_parts_and_the_reference_runs(root, capsys):
    assert command.main(["--validation"], root=root, parts=PARTS) == 0
    assert capsys.readouterr().out.startswith("results/campaign/VALIDATION.md: The two methods agree, by")
    text = (root / log.FOLDER / "VALIDATION.md").read_text()
    assert "of 36 comparisons agree, and at least 31 have to" in text
    assert "of 36 agree by the run's plain ratio" in text
    assert "| mnist-mlp | jax | 21 | +25.0 % |" in text
    assert LOADED_RUN not in text
    records = figures.Records(root / log.FOLDER)
    assert figures.figure("validation agreed", records).endswith(" of 36")
    assert figures.figure("validation contained", records).endswith(" of 36")


def test_a_process_that_failed_costs_its_round_and_not_the_validation(root, capsys):
    folder, name = root / log.FOLDER, f"validation-{VALIDATION_PARTS}"
    (folder / name / validation.RECORDS).unlink()
    first, *others = [
        msgspec.structs.replace(
            process(task.workload, task.backend, RATES[task.backend]), part=VALIDATION_PARTS, task=task
        )
        for task in validation.tasks(VALIDATION_PARTS)
    ]
    ran = log.Ran(number=0, command=("python",), started_at="", wall_s=1.0, exit_status=1)
    log.write_part(folder, msgspec.structs.replace(record_of(find_part(name), "failed"), ran=(ran,)))
    for one in others:
        store.append(folder / name / validation.RECORDS, one)
    with pytest.raises(FigureError, match=f"part {name} is failed"):
        command.main(["--validation"], root=root, parts=PARTS)
    store.append(folder / name / validation.RECORDS, died(first))
    assert command.main(["--validation"], root=root, parts=PARTS) == 0
    text = (folder / "VALIDATION.md").read_text()
    assert text.count("- failed: ") == 1
    assert f"| {first.task.workload} | " in text
    assert "| 20 |" in text


def test_what_a_run_does_not_give_is_named(root, capsys):
    folder, name = root / log.FOLDER, "run-default-2"
    run = read_run(folder / name)
    lines = [store.encoded(one) for one in run.records if "torch" not in str(getattr(one, "spec", ""))]
    (folder / name / "records.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    assert command.main(["--validation"], root=root, parts=PARTS) == 0
    text = (folder / "VALIDATION.md").read_text()
    for workload in VALIDATED:
        assert f"missing: {name}, {workload}: jax / torch, tensorflow / torch: not compared" in text
    assert "of 30 comparisons agree" in text


def test_nothing_is_written_before_all_is_measured(root):
    folder = root / log.FOLDER
    log.write_part(folder, record_of(find_part("run-default-2"), "failed"))
    for option in ("--validation", "--reference", "--crossed"):
        with pytest.raises(FigureError, match="part run-default-2 is failed"):
            command.main([option], root=root, parts=PARTS)
    assert not list(folder.glob("*.md"))


@pytest.mark.parametrize("name", ["run-90-minutes", "run-default-3"])
@pytest.mark.parametrize("option", ["--validation", "--crossed"])
def test_a_part_of_another_cpu_is_not_pooled(root, name, option):
    folder = root / log.FOLDER
    record = record_of(find_part(name), "done")
    other = msgspec.structs.replace(record.cpu, flags=("avx2",), model="Another CPU")
    log.write_part(folder, msgspec.structs.replace(record, cpu=other))
    with pytest.raises(RecordError, match=f"{name} on Another CPU"):
        command.main([option], root=root, parts=PARTS)


def test_the_reference_runs_have_a_report(root, capsys):
    assert command.main(["--reference"], root=root, parts=PARTS) == 0
    text = (root / log.FOLDER / "REFERENCE.md").read_text()
    assert "They agree, by the rules" in text
    assert "of 27 ratios of two default runs agree, and at least 22 have to" in text
    assert "0 claims of 9 pairs of runs contradict each other" in text
    assert "## Precision by budget" in text


def test_the_self_test_across_frameworks_has_a_report_without_the_loaded_run(root, capsys):
    log.write_part(root / log.FOLDER, record_of(find_part(LOADED_RUN), "failed"))
    assert command.main(["--crossed"], root=root, parts=PARTS) == 0
    text = (root / log.FOLDER / "CROSSED.md").read_text()
    assert "It holds, by the rule" in text
    assert "of 27 intervals hold 0" in text
    assert LOADED_RUN not in text


def test_no_report_needs_an_interpreter(root, capsys):
    for option in ("--reference", "--crossed", "--validation"):
        assert command.main(["--backends", option], root=root, parts=PARTS) == 0
    assert capsys.readouterr().out == ""


def test_figures_are_checked_and_rewritten(root, capsys):
    page = root / "README.md"
    mark = "<!-- figure: run-default-1 mnist-mlp jax/torch ratio -->1<!-- /figure -->"
    page.write_text(f"JAX: {mark}\n")
    assert command.main(["--figures"], root=root, parts=PARTS) == 1
    assert (
        "README.md, line 1: run-default-1 mnist-mlp jax/torch ratio: the page has '1'"
        in capsys.readouterr().out
    )
    assert command.main(["--figures", "--write"], root=root, parts=PARTS) == 0
    assert command.main(["--figures"], root=root, parts=PARTS) == 0
    assert ">1<" not in page.read_text()


def test_raw_values_are_packed_and_reports_stay_the_same(root, capsys):
    folder = root / log.FOLDER
    command.main(["--validation"], root=root, parts=PARTS)
    before = (folder / "VALIDATION.md").read_bytes()
    assert command.main(["--pack"], root=root, parts=PARTS) == 0
    assert list(folder.rglob("*.jsonl")) == []
    command.main(["--validation"], root=root, parts=PARTS)
    assert (folder / "VALIDATION.md").read_bytes() == before
    assert "| validation-3 | validation by another method | done |" in (folder / "README.md").read_text()


def test_a_run_with_a_line_that_cannot_be_read_is_refused(root):
    with (root / log.FOLDER / "run-default-2" / "records.jsonl").open("ab") as file:
        file.write(b"{damaged\n")
    with pytest.raises(RecordError, match=r"run-default-2 has lines that cannot be read: .*line"):
        command.main(["--reference"], root=root, parts=PARTS)
