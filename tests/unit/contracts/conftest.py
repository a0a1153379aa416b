"""What decodes large batches decodes small ones too in these tests."""

import pytest

from freshdata.contracts import decode


@pytest.fixture(autouse=True, scope="package")
def _columnar_from_the_first_message():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "FEWEST", 1)
        yield
