"""The criu program for libcriu_py, which finds it beside itself (`libcriu_py.criu.find`): ``bin/criu``."""
