"""hesscli: layer Hessians by two independent witnesses, compared, split and analysed."""

__version__ = "0.1.0"
