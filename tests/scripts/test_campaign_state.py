"""The state of the code: what changes it, what does not, and what a changed state says."""

from pathlib import Path

import pytest
from commits import commit, git

from bench.errors import RecordError
from campaign import state


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name in ("bench/a.py", "backends/b.py", "docs/c.md", "constraints.txt", "results/r.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    git(tmp_path, "init", "-q", "-b", "main", str(root))
    commit(root, "first")
    return root


@pytest.mark.parametrize("name", ["bench/a.py", "backends/b.py", "constraints.txt"])
def test_a_change_of_the_code_changes_the_state_committed_or_not(checkout, name):
    before = state.state_of(checkout)
    (checkout / name).write_text("changed")
    changed = state.state_of(checkout)
    assert changed != before
    commit(checkout, "second")
    assert state.state_of(checkout) == changed


def test_results_and_docs_do_not_change_it(checkout):
    before = state.state_of(checkout)
    (checkout / "docs/c.md").write_text("changed")
    (checkout / "results/new.md").write_text("new")
    commit(checkout, "results")
    assert state.state_of(checkout) == before


def test_a_renamed_and_a_removed_file_change_it(checkout):
    states = {state.state_of(checkout)}
    git(checkout, "mv", "bench/a.py", "bench/z.py")
    states.add(state.state_of(checkout))
    git(checkout, "rm", "-q", "-f", "bench/z.py")
    states.add(state.state_of(checkout))
    assert len(states) == 3


def test_the_digest_depends_on_names_and_contents_and_on_no_order():
    one = {"a": b"1", "b": b"2"}
    assert state.digest(one) == state.digest(dict(reversed(one.items())))
    others = [{"a": b"2", "b": b"1"}, {"a": b"1"}, {"a": b"1", "c": b"2"}, {"a": b"12", "b": b""}]
    assert len({state.digest(other) for other in (one, *others)}) == 5


def test_a_file_that_git_does_not_track_is_refused(checkout):
    (checkout / "bench/stray.py").write_text("x")
    with pytest.raises(RecordError, match=r"git does not track bench/stray\.py"):
        state.state_of(checkout)


def test_what_is_not_committed_is_named(checkout):
    assert state.uncommitted(checkout) == []
    (checkout / "bench/a.py").write_text("changed")
    (checkout / "docs/c.md").write_text("changed")
    (checkout / "scripts/campaign").mkdir(parents=True)
    (checkout / "scripts/campaign/plan.py").write_text("new")
    assert state.uncommitted(checkout) == ["bench/a.py", "scripts/campaign/plan.py"]


def test_another_state_is_refused_with_the_files_that_differ(checkout):
    begun, first = state.state_of(checkout), state.commit_of(checkout)
    state.refuse_another_state(checkout, begun=begun, commit=first, now=begun)
    (checkout / "backends/b.py").write_text("changed")
    commit(checkout, "second")
    with pytest.raises(RecordError, match=r"backends/b\.py differ from commit"):
        state.refuse_another_state(checkout, begun=begun, commit=first, now=state.state_of(checkout))
    with pytest.raises(RecordError, match="is not at hand to tell what differs"):
        state.refuse_another_state(checkout, begun=begun, commit="0" * 40, now=state.state_of(checkout))


def test_a_cpu_has_the_flags_that_matter_and_no_host(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("model name : Some CPU\nflags : fpu avx avx2 sse\n")
    monkeypatch.setattr(state, "_CPUINFO", tmp_path / "cpuinfo")
    found = state.this_cpu()
    assert (found.model, found.flags) == ("Some CPU", ("avx2",))
    assert found.cpus >= 1
    assert "avx2" in found.in_words()
    assert set(state.Cpu.__struct_fields__) == {"model", "flags", "cpus", "memory_gib", "family", "variant"}


def test_two_designs_of_one_name_are_two_kinds(monkeypatch, tmp_path):
    monkeypatch.setattr(state, "_CPUINFO", tmp_path / "cpuinfo")

    def found(numbers: str) -> state.Cpu:
        (tmp_path / "cpuinfo").write_text(f"{numbers}model name : Some CPU\nflags : fpu avx avx2 sse\n")
        return state.this_cpu()

    first = found("cpu family\t: 23\nmodel\t\t: 49\n")
    second, third = found("cpu family\t: 25\nmodel\t\t: 1\n"), found("cpu family\t: 25\nmodel\t\t: 17\n")
    unknown = found("")
    assert (first.family, first.variant, unknown.family) == (23, 49, None)
    assert "Some CPU (family 23, model 49), " in first.in_words()
    assert state.kinds([first, second, first, third]) == [[first], [second], [third]]
    assert state.kinds([unknown, first, second]) == [[unknown, first], [second]]
