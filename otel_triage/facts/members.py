"""What the members of error objects are called, over all providers, gateways and log formats."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

# Member, in lower case and without separators -> what it tells and how well: a lower rank wins.
_MEMBERS: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    "message": (("message", 0), ("child", 8)),
    "err": (("message", 0), ("child", 2)),  # zap's and pino's log lines, whose "msg" says what was tried
    "msg": (("message", 1),),
    "errormessage": (("message", 2), ("child", 8)),
    "errormsg": (("message", 2), ("child", 8)),
    "statusmsg": (("message", 2),),
    "errordescription": (("message", 2),),
    "faultstring": (("message", 2),),
    "detail": (("message", 4), ("child", 6)),
    "details": (("message", 5), ("child", 7)),
    "error": (("message", 3), ("word", 0), ("child", 2)),
    "description": (("message", 6),),
    "title": (("message", 7),),
    "raw": (("message", -1), ("child", 0)),
    "code": (("code", 0), ("status", 3)),
    "errorcode": (("code", 1), ("status", 4)),
    "errcode": (("code", 1), ("status", 4)),
    "__type": (("code", 2),),
    "grpccode": (("code", 5),),
    "reason": (("code", 6),),
    "status": (("status", 1), ("canonical", 0), ("child", 9)),
    "statuscode": (("status", 0), ("number", 0)),
    "httpstatus": (("status", 0),),
    "httpstatuscode": (("status", 0),),
    "httpcode": (("status", 0),),
    "type": (("type", 0),),
    "errortype": (("type", 1),),
    "param": (("param", 0),),
    "parameter": (("param", 1),),
    "field": (("param", 2),),
    "loc": (("param", 3),),
    "requestid": (("request_id", 0),),
    "xrequestid": (("request_id", 1),),
    "retryafter": (("wait", 0),),
    "retryafters": (("wait", 0),),
    "retryafterseconds": (("wait", 0),),
    "retryafterms": (("wait_ms", 0),),
    "retrydelay": (("wait", 1),),
    "resetsinseconds": (("wait", 2),),
    "resetinseconds": (("wait", 2),),
    "resetafter": (("wait", 2),),
    "estimatedtime": (("wait", 3),),  # Hugging Face, while a model loads
    "resetsat": (("until", 0), ("date", 0)),
    "resetat": (("until", 0), ("date", 0)),
    "resettime": (("until", 1), ("date", 1)),
    "resetdate": (("until", 1), ("date", 1)),
    "retryat": (("until", 1), ("date", 1)),
    "warnings": (("notes", 0),),  # Hugging Face, beside "error"
    "headers": (("headers", 0),),
    "responseheaders": (("headers", 0),),
    "innererror": (("child", 1),),
    "lasterror": (("child", 1),),
    "errors": (("child", 3),),
    "baseresp": (("child", 3),),
    "fault": (("child", 3),),
    "errormsgs": (("child", 3),),
    "metadata": (("child", 4),),
    "responsemetadata": (("child", 9),),
    "statusdetails": (("child", 4),),
    "cause": (("child", 4),),
    "body": (("child", 5),),
    "responsebody": (("child", 5),),
    "responsejson": (("child", 5),),
    "data": (("child", 6),),
    "response": (("child", 6),),
}

_SEPARATORS: Final = str.maketrans("", "", "-. ")


@lru_cache(maxsize=2048)
def roles(member: str) -> tuple[tuple[str, int], ...]:
    """What a member tells, with a rank each (a lower one wins); nothing for one that is not known."""
    plain = member.lower().translate(_SEPARATORS)
    return _MEMBERS.get(plain) or _MEMBERS.get(plain.replace("_", ""), ())
