import pytest
from standin import StandIn, stand_in


@pytest.fixture(scope="session")
def tiny() -> StandIn:
    return stand_in()
