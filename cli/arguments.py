"""Arguments that several commands take."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

SubmissionId = Annotated[int, Parameter(validator=Number(gt=0))]
Flag = Annotated[bool, Parameter(negative=())]
Json = Annotated[bool, Parameter(name="--json", negative=())]
WaitSeconds = Annotated[float, Parameter(validator=Number(gt=0))]
WAIT_SECONDS = 24 * 3600.0
