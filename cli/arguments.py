"""Arguments that several commands take."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

SubmissionId = Annotated[int, Parameter(validator=Number(gt=0))]
