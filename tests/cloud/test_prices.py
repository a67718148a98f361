"""What a fleet costs, what was spent, and the limits."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmr.cloud.prices import (
    Group,
    Limits,
    Rate,
    check_limits,
    hours_ahead,
    month_start,
    price_fleet,
    read_prices,
    spent_usd,
    total_usd_per_hour,
)
from lmr.errors import CloudError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def group(name="cpu", types=("m5.24xlarge",), count=10, disk_gb=0):
    return Group(name=name, types=types, count=count, disk_gb=disk_gb)


def test_the_teams_ten_machines_cost_what_they_cost():
    prices = read_prices()
    (charge,) = price_fleet([group()], prices)
    assert charge.usd_per_hour == pytest.approx(10 * (4.608 + prices.address_hour))
    # Ten of them have nearly the memory of the giant and 7.5 times its cores, for 1.7 times its price.
    many, giant = prices.machine("m5.24xlarge"), prices.machine("x1e.32xlarge")
    assert 10 * many.memory_gib == pytest.approx(giant.memory_gib, rel=0.02)
    assert 10 * many.vcpus == 7.5 * giant.vcpus
    assert 10 * many.usd_per_hour / giant.usd_per_hour == pytest.approx(1.73, abs=0.01)


def test_a_mixed_group_is_priced_by_its_dearest_type_and_with_its_disks():
    prices = read_prices()
    (charge,) = price_fleet([group(types=("m5a.24xlarge", "m7i.24xlarge"), count=2, disk_gb=730)], prices)
    assert charge.type == "m7i.24xlarge"
    assert charge.each_usd == pytest.approx(4.8384 + prices.address_hour + prices.disk_gb_month)
    assert total_usd_per_hour([charge, charge]) == pytest.approx(4 * charge.each_usd)


def test_what_has_no_price_is_not_started():
    with pytest.raises(CloudError, match=r"no p5\.48xlarge"):
        price_fleet([group(types=("p5.48xlarge",))], read_prices())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("region = ", "not a price table"),
        ('region = "eu-west-1"', "KeyError: 'machines'"),
        (
            'region="r"\nchecked=2026-01-01\ndisk_gb_month=1\naddress_hour=1\n'
            "[machines]\nx={usd_per_hour=0, vcpus=1, memory_gib=1}",
            "without a price",
        ),
        (
            'region="r"\nchecked=2026-01-01\ndisk_gb_month=1\naddress_hour=1\n[machines]\nx={price=1}',
            "unexpected keyword argument 'price'",
        ),
    ],
)
def test_a_broken_table_is_told(tmp_path, text, said):
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(CloudError) as caught:
        read_prices(str(tmp_path / "prices.toml"))
    assert said in str(caught.value)


def test_spent_is_the_integral_of_the_ledger():
    rates = [Rate(NOW, 10.0), Rate(NOW + timedelta(hours=2), 40.0), Rate(NOW + timedelta(hours=3), 0.0)]
    assert spent_usd(rates, NOW, NOW + timedelta(hours=10)) == pytest.approx(2 * 10 + 40)
    assert spent_usd(rates[::-1], NOW + timedelta(hours=1), NOW + timedelta(hours=2.5)) == pytest.approx(30)
    assert spent_usd([], NOW, NOW + timedelta(hours=10)) == 0
    assert spent_usd(rates, NOW - timedelta(hours=5), NOW - timedelta(hours=1)) == 0


@given(
    hours=st.lists(st.floats(0, 100), min_size=1, max_size=6),
    usd=st.lists(st.floats(0, 100), min_size=6, max_size=6),
    cut=st.floats(0, 100),
)
def test_spent_adds_up_over_spans(hours, usd, cut):
    rates = [Rate(NOW + timedelta(hours=h), u) for h, u in zip(hours, usd, strict=False)]
    end, middle = NOW + timedelta(hours=100), NOW + timedelta(hours=cut)
    whole = spent_usd(rates, NOW, end)
    assert spent_usd(rates, NOW, middle) + spent_usd(rates, middle, end) == pytest.approx(whole, abs=1e-6)
    assert 0 <= whole <= 100 * max(usd) + 1e-6


def test_months():
    assert month_start(NOW) == datetime(2026, 11, 1, tzinfo=UTC)
    assert hours_ahead(NOW, None) == 6 * 24 + 12
    assert hours_ahead(datetime(2026, 12, 31, 23, tzinfo=UTC), None) == 1
    assert hours_ahead(NOW, NOW + timedelta(hours=6)) == 6
    assert hours_ahead(NOW, NOW - timedelta(hours=6)) == 0


def test_limits():
    check_limits(Limits(), usd_per_hour=1e6, hours=1e6)
    check_limits(Limits(60, 400), usd_per_hour=60, hours=5, spent_this_month_usd=100)
    with pytest.raises(CloudError, match=r"limit per hour.*\n.*60\.01 USD per hour, limit 60\.00"):
        check_limits(Limits(per_hour=60), usd_per_hour=60.01)
    with pytest.raises(CloudError, match=r"100\.00 USD spent \+ 60\.00 per hour for 5\.1 h = 406\.00"):
        check_limits(Limits(per_month=400), usd_per_hour=60, hours=5.1, spent_this_month_usd=100)
