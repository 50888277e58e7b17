"""The one place where tests write into a network past its checks."""


def put_last_number(network, name, value):
    """Set the last number of a parameter to what set_parameters would refuse, as an update that overflows does."""
    parameters = {key: values.copy() for key, values in network.parameters.items()}
    parameters[name].flat[-1] = value
    network._layout.pack(parameters, network._store)
    network._evaluates = network._may_skip = None  # as an update leaves them
