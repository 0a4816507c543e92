"""What `RayExecutor` uses of Ray, in threads; starts at once, and fails when asked to.

FAKE_RAY, JSON: ``lose``, so many units are lost; ``head``, the head ends once so many
units were given; ``end``, the process that uses Ray ends then; ``refuse``, what `init`
raises; ``cluster``, there is one already.
"""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from ray._private import worker

_asked = json.loads(os.environ.get("FAKE_RAY", "{}"))
_state = SimpleNamespace(given=0, pool=None, head=None, cores=0)


class WorkerCrashedError(Exception):
    pass


def is_initialized():
    return _state.pool is not None


def init(address=None, num_cpus=None, **options):
    if "refuse" in _asked:
        raise RuntimeError(_asked["refuse"])
    if _asked.get("cluster") and num_cpus is not None and address != "local":
        raise ValueError("num_cpus must not be provided")
    print("this is no result")
    os.chdir("/")  # as workers of a cluster, whose directory is another one
    worker._global_node = SimpleNamespace(head=not _asked.get("cluster"))
    _state.cores = num_cpus or 2
    _state.pool = ThreadPoolExecutor(1)
    _state.head = socket.create_server(("127.0.0.1", 0))


def nodes():
    return [{"Resources": {"CPU": float(_state.cores)}}, {"Resources": {}}]


def get_runtime_context():
    port = _state.head.getsockname()[1]
    return SimpleNamespace(gcs_address=f"127.0.0.1:{port}")


def remote(**options):
    assert options.keys() <= {"num_cpus", "max_retries", "memory"}
    assert options["max_retries"] == 0
    return lambda function: SimpleNamespace(remote=lambda *a: _submit(function, *a))


def _submit(function, *arguments):
    _state.given += 1
    if _state.given == _asked.get("head"):
        _state.head.close()
    if _state.given == _asked.get("end"):
        os._exit(1)
    if _state.given >= min(_asked.get("head", 1_000), 1_000):
        return _state.pool.submit(_never)
    if _state.given <= _asked.get("lose", 0):
        return _state.pool.submit(_lost)
    return _state.pool.submit(function, *arguments)


def _lost():
    raise WorkerCrashedError("The worker died\nunexpectedly")


def _never():
    import time

    time.sleep(60)


def wait(references, num_returns, timeout, fetch_local):
    assert num_returns == len(references) > 0
    done = [r for r in references if r.done()]
    return done, [r for r in references if r not in done]


def get(reference):
    return reference.result()
