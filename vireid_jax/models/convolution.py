"""Which convolution the layers compute with."""

import jax

from vireid_jax.models import cpu_convolution, gpu_convolution


def for_backend():
    """What replaces `jax.lax.conv_general_dilated` here, or None."""
    own = {"cpu": cpu_convolution, "gpu": gpu_convolution}.get(jax.default_backend())
    return own and own.conv_general_dilated
