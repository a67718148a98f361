"""Extract global: one descriptor per photo and one per region of it, whitened.

Two kinds of descriptors stand behind the same dataset: those that are aggregated from the local features
(VLAD, triangulation embedding) and those of a network (`lmr.features.kinds` lists both).
"""

from dataclasses import replace

from lmr.errors import SettingsError
from lmr.features.extractors import global_kind, is_own
from lmr.runtime.steps import Source
from lmr.steps.both import Both
from lmr.steps.features.aggregated import describe_by_aggregation
from lmr.steps.features.columns import Described
from lmr.steps.features.local import Extracted
from lmr.steps.features.network import describe_by_network, open_network
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.inputs import Inputs

__all__ = ["DescribeSettings", "extract_global", "open_network"]


def extract_global(
    images: Both[Source], local: Both[Extracted], settings: DescribeSettings, inputs: Inputs
) -> Both[Described]:
    """Declare the steps that describe gallery and queries.

    Columns: `photo`, `descriptor` (float16, unit; zeros for a photo without descriptor), `regions` (a list of
    float16 descriptors per photo).

    Raises
    ------
    SettingsError
        If weights are needed and there are none.
    """
    described = _described(images, local, settings, inputs)
    return described.map(lambda side: replace(side, searched_on=inputs.search_device))


def _described(
    images: Both[Source], local: Both[Extracted], settings: DescribeSettings, inputs: Inputs
) -> Both[Described]:
    if is_own(settings.descriptor) or global_kind(settings.descriptor).aggregation is None:
        return describe_by_network(images, settings, inputs)
    if settings.whitening == "checkpoint":
        raise SettingsError(
            f"{settings.descriptor} comes without weights, and so without their whitening",
            got="describe.whitening = checkpoint",
            fix="give --global gem, or --set describe.whitening=gallery",
        )
    return describe_by_aggregation(images, local, settings)
