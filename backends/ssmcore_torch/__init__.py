from ssmcore_torch._backend import TorchBackend
BACKEND = TorchBackend()
