from ssmcore_jax._backend import JaxBackend
BACKEND = JaxBackend()
