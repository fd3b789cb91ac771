"""The quick part of the campaign of ``kills.py``: some kills, errors and short writes for each command."""

import errno

import pytest
from injection import FAIL, KILL, LASTING, SHORT, STOP
from kills import Blow, Campaign
from ways import VERBS, WAYS


@pytest.fixture(scope="module")
def campaign(vulnerable, made, tmp_path_factory):
    mine = Campaign(tmp_path_factory.mktemp("campaign"), vulnerable, made)
    yield mine
    mine.close()


def parts(campaign, verb, *shares):
    """Return the numbers of operations that lie at these shares of all of a command."""
    count = campaign.operations(verb)
    return [max(1, round(share * count)) for share in shares]


@pytest.mark.parametrize("verb", VERBS)
def test_a_killed_command_goes_on(campaign, verb):
    begin, end = parts(campaign, verb, 0.3, 0.9)
    assert campaign.check(verb, [Blow(begin, KILL), Blow(end, KILL)]) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WAYS if name not in VERBS])
def test_every_form_of_output_goes_on(campaign, name):
    early, late = parts(campaign, name, 0.5, 0.95)
    assert campaign.check(name, [Blow(early, KILL), Blow(late, STOP)]) is None


@pytest.mark.parametrize("verb", ["fetch", "embed", "cluster"])
def test_a_disk_that_fails_is_one_line_and_then_it_goes_on(campaign, verb):
    early, late = parts(campaign, verb, 0.4, 0.8)
    assert campaign.check(verb, [Blow(early, LASTING, errno.ENOSPC), Blow(late, FAIL, errno.EDQUOT)]) is None


@pytest.mark.parametrize("verb", ["fetch", "cluster"])
def test_short_writes_are_gone_on_with(campaign, verb):
    assert campaign.check(verb, [Blow(1, SHORT)]) is None


def test_what_is_wrong_is_seen(campaign, monkeypatch):
    wanted = campaign.undisturbed("cluster")
    monkeypatch.setitem(campaign._undisturbed, "cluster", wanted | {"absent.txt": b""})
    assert campaign.check("cluster", []) == "missing: absent.txt"
    monkeypatch.setitem(campaign._undisturbed, "cluster", {})
    assert campaign.check("cluster", []).startswith("left over: three")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blow"),
    [
        ("fetch", Blow(16, LASTING, errno.EIO)),
        ("fetch weights", Blow(28, KILL)),
        ("fetch betaseg", Blow(273, KILL)),
        ("fetch betaseg", Blow(268, LASTING, errno.EIO)),
        ("fetch betaseg", Blow(206, KILL)),
        ("train", Blow(24, FAIL, errno.EIO)),
    ],
    ids=str,
)
def test_what_the_campaign_found_is_mended(campaign, name, blow):
    assert campaign.check(name, [blow]) is None
