"""GitHub's workflows, by zizmor: permissions, credentials left behind, strangers' actions, filled caches."""

import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ZIZMOR = Path(sysconfig.get_path("scripts")) / "zizmor"

needs_zizmor = pytest.mark.skipif(not ZIZMOR.exists(), reason="zizmor is missing: pip install 'lmr[dev]'")


def audit(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ZIZMOR), "--offline", "--no-progress", "--format", "plain", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@needs_zizmor
def test_workflows_hold_no_known_weakness():
    found = audit(ROOT / ".github")
    assert found.returncode == 0, found.stdout


@needs_zizmor
def test_a_checkout_that_leaves_its_credentials_behind_is_found(tmp_path):
    (workflows := tmp_path / ".github" / "workflows").mkdir(parents=True)
    text = (ROOT / ".github" / "workflows" / "docs.yml").read_text()
    (workflows / "docs.yml").write_text(text.replace("        with: {persist-credentials: false}\n", ""))
    (workflows.parent / "zizmor.yml").write_text((ROOT / ".github" / "zizmor.yml").read_text())
    found = audit(workflows.parent)
    assert found.returncode != 0
    assert "artipacked" in found.stdout
