"""`lmr plan` and `lmr measure`, as a user types them."""

import re

import pytest
from typer.testing import CliRunner

from lmr.api.rates import Rate, Rates, measured_rates, read_rates, write_rates
from lmr.cli.main import app
from lmr.cli.plan import machines_of
from lmr.cloud.prices import read_prices
from lmr.errors import CloudError, ClusterError, LmrError, SettingsError
from lmr.scheduler.run import run
from tests.support import world as worlds
from tests.support.toys import Quiet, workflow

SIZES = ("--gallery", 3000, "--queries", 300)
TEAM = ("--machines", "10 x m5.24xlarge", "--against", "1 x x1e.32xlarge")


def lmr(*arguments):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, arguments)))
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.output


def rates_file(folder, **seconds):
    steps = {
        name: Rate(seconds_per_unit=each, unit="unit", work=1.0, tasks=1) for name, each in seconds.items()
    }
    path = str(folder / "rates.json")
    write_rates(path, Rates(measured={"date": "2026-11-28", "gallery": 100}, steps=steps))
    return path


def test_the_teams_machines_are_compared_by_hours_and_price(tmp_path):
    # 30,000 pairs in 1,000 tasks of 30, ten seconds each: two rounds on 960 processors, eight on 128.
    shards = ("--set", "ingest.photos_per_shard=3")
    said = lmr("plan", "retrieval", *SIZES, *TEAM, *shards, "--rates", rates_file(tmp_path, verify=10.0))
    assert "3,000 gallery photos, 300 queries; prices on demand, us-east-1, checked 2026-11-24" in said
    ten, one = (float(found) for found in re.findall(r": ([\d.]+) USD per hour", said))
    # The team's comparison: 4.6 USD for each of ten, 26.7 for the giant; disks and addresses come on top.
    assert ten == pytest.approx(46.08, abs=0.4)
    assert one == pytest.approx(26.688, abs=0.04)
    compared = re.search(
        r"10 x m5.24xlarge: 0.17 h, (.+) USD; 1 x x1e.32xlarge: 0.67 h, (.+) USD: (.+)", said
    )
    assert float(compared[1]) == pytest.approx(ten / 6, abs=0.01)
    assert float(compared[2]) == pytest.approx(one * 2 / 3, abs=0.01)
    assert compared[3] == "4.0 times the hours, 2.3 times the price"
    assert "bottleneck: verify, 0.17 h. Its processors are busy to the end: more machines help" in said
    assert "rates were measured with 100 gallery photos" in said
    assert "not in the hours, since their rates are not known: ingest, " in said


def test_without_rates_no_hours_are_told(tmp_path):
    said = lmr("plan", "retrieval", *SIZES)
    assert "bottleneck" not in said
    assert "`lmr measure rates.json` measures them" in said
    assert re.search(r"verify +│ +24 │ +960 │ +– │ +– │ +– │ tasks", said)


def test_what_a_machine_cannot_hold_is_refused(tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text(
        'region = "r"\nchecked = "2026-11-28"\ndisk_gb_month = 0\naddress_hour = 0\n'
        "[machines]\ntiny = { usd_per_hour = 1, vcpus = 1, memory_gib = 0.5, spot_usd_per_hour = 0.25 }\n"
    )
    with pytest.raises(ClusterError, match=r"does not fit any of these machines"):
        lmr("plan", "retrieval", *SIZES, "--machines", "tiny", "--prices", prices)
    (group,) = machines_of("3 x tiny", read_prices(str(prices)), True, 100)
    assert (group.count, group.usd_per_hour) == (3, 0.25)


def test_recognition_is_planned_without_labels(tmp_path):
    said = lmr("plan", "recognition", *SIZES, "--rates", rates_file(tmp_path, recognise=1.0))
    assert "3,000 gallery photos, 300 queries" in said
    assert "recognise" in said


def test_descriptors_are_planned_by_their_number():
    said = lmr("plan", "descriptors", "--gallery", 1_000_000, "--queries", 1000, "--dimension", 256)
    assert "1,000,000 gallery photos, 1,000 queries" in said
    assert "own_descriptors" in said
    assert "diffuse" in said
    # A million descriptors of 256 numbers, kept once as a photo's and once as its region.
    assert "1.0 GB" in next(line for line in said.splitlines() if re.match(r"│ own_descriptors +│.*GB", line))


def test_spot_prices_are_the_users_own():
    with pytest.raises(CloudError, match=r"no spot price of m5\.24xlarge"):
        machines_of("2 x m5.24xlarge", read_prices(), True, 100)


@pytest.mark.parametrize("text", ["ten machines!", "0 x m5.24xlarge", "", "2 x m5.24xlarge,"])
def test_what_names_no_machines_is_refused(text):
    with pytest.raises(SettingsError, match="these are no machines"):
        machines_of(text, read_prices(), False, 100)


def test_rates_are_those_of_the_shards(tmp_path):
    root = str(tmp_path / "run")
    steps = workflow(tmp_path / "calls", shards=2, faults={"numbers": dict.fromkeys(range(2), "slow")})
    run([steps[-1]], root, None, Quiet())
    rates = measured_rates(steps, root, gallery=2)
    took = sum(steps[0].dataset(root).facts(shard)["seconds"] for shard in range(2))
    rate = rates.steps["numbers"]
    assert rate.tasks == 2
    assert rate.seconds_per_unit * rate.work == pytest.approx(took)
    path = str(tmp_path / "rates.json")
    write_rates(path, rates)
    assert read_rates(path) == rates
    with pytest.raises(LmrError, match="there is no such file of rates"):
        read_rates(str(tmp_path / "none.json"))


def test_a_plan_of_a_run_counts_what_is_still_to_be_made(tmp_path):
    world = worlds.make(tmp_path / "photos")
    own = ("--gallery", world / "gallery", "--queries", world / "queries", "--out", tmp_path / "run")
    rates = rates_file(tmp_path, verify=10.0)
    said = lmr("run", "retrieval", *own, "--plan", "--machines", "2 x m5.12xlarge", "--rates", rates)
    assert re.search(r"2 x m5.12xlarge: 4\.\d\d USD per hour", said)
    assert "bottleneck: verify" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_rates_are_measured_on_ones_own_photos_and_taken_by_a_plan(tmp_path):
    world = worlds.make(tmp_path / "photos")
    file, root = tmp_path / "rates.json", tmp_path / "run"
    own = ("--gallery", world / "gallery", "--queries", world / "queries", "--out", root, "--workers", 0)
    said = lmr("measure", file, *own)
    assert f"in {file}" in said.replace("\n", "")
    rates = read_rates(str(file))
    assert {"ingest", "extract_local", "verify", "diffuse"} <= rates.steps.keys()
    before = rates.seconds_per_unit
    lmr("measure", file, *own)  # a run that has ended is only read
    assert read_rates(str(file)).seconds_per_unit == before
    said = lmr("plan", "retrieval", *SIZES, "--rates", file)
    assert re.search(r"bottleneck: \w+, \d+\.\d\d h", said)
    with pytest.raises(SettingsError, match="one of the two"):
        lmr("measure", file, "--gallery", world / "gallery")
