"""JAX over two devices: gradients through ``jax.shard_map``, which checks what varies over them."""

from __future__ import annotations

import json

import pytest
from checks import fresh

pytest.importorskip("jax", reason="jax is not installed")

CODE = """
import json
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
import ssmcore as ssm

rng = np.random.default_rng(0)
mesh, same, each = Mesh(np.array(jax.devices()), ("d",)), PartitionSpec(), PartitionSpec("d")
assert mesh.size == 2

def draw(*shape):
    return jnp.asarray(rng.uniform(-0.9, 0.9, shape))

def gap(f, specs, *given):
    '''Return how far gradients over two devices are from those of one, of their peaks.'''
    weights = draw(*f(*given).shape)
    def grad(g):
        loss = lambda *x: jnp.sum(weights * g(*x) ** 2)
        return jax.tree.leaves(jax.jit(jax.grad(loss, range(len(given))))(*given))
    spread = jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=each)
    pairs = zip(grad(spread), grad(f), strict=True)
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in pairs)

def model(name, mode):
    layer = getattr(ssm, name)(2, d_state=2)
    run = lambda params, u: layer(params, u, mode=mode)
    return gap(run, (same, each), layer.init(0, backend="jax", dtype="float64"), draw(4, 9, 2))

L = 70
scan, S = ssm.linear_scan, ssm.selective_scan
for_all = lambda b, x: jnp.broadcast_to(b, (x.shape[0], L, 3))
resetting = lambda a, b, r: scan(a, for_all(b, r), reset=r > 0.5, reverse=True) * r[..., None]
print(json.dumps({
    "linear_scan": gap(scan, (same, each, each), draw(L, 3), draw(4, L, 3), draw(4, 3)),
    "only reset varies": gap(resetting, (same, same, each), draw(3), draw(L, 3), draw(4, L)),
    "selective_scan": gap(
        lambda u, A, B: S(u, jnp.exp(u), A, B, B), (each, same, each),
        draw(4, 9, 3), -jnp.exp(draw(3, 2)), draw(4, 9, 2),
    ),
    "S6, recurrence": model("S6", "recurrence"),
}))
"""


FLAGS = (
    "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 "
    "--xla_cpu_use_fusion_emitters=false"
)


def test_gradients_over_two_devices_are_those_of_one() -> None:
    printed = fresh.output(CODE, JAX_ENABLE_X64="1", XLA_FLAGS=FLAGS)
    found = json.loads(printed.splitlines()[-1])
    print(found)
    for name, gap in found.items():  # sums of 4 x 70 terms, each of two passes over 70 steps
        assert gap < 2.0**-52 * 4 * 70, name
