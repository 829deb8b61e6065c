"""The names of what a configuration can choose, for modules that need only the names."""

ACTIVATIONS = (
    "linear",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "gelu_tanh",
    "silu",
    "mish",
    "sigmoid",
    "tanh",
    "softplus",
    "softsign",
    "exponential",
    "square",
    "sin",
    "relu6",
    "hard_sigmoid",
)
# The parameters of those that have any, with Keras's default values.
ACTIVATION_PARAMETERS = {"leaky_relu": {"negative_slope": 0.2}, "elu": {"alpha": 1.0}}
ACTIVATION_ALIASES = {"swish": "silu"}
LOSSES = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "categorical_focal_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "log_cosh",
    "kl_divergence",
    "poisson",
    "sum_of_squares",
    "sum",
    "output",
)
# Those that take logits.
CROSSENTROPIES = LOSSES[:4]
FOCAL = CROSSENTROPIES[3]
# Not a loss, but one of the network's outputs in its place.
OUTPUT = LOSSES[-1]
# The losses that have an argument.
LOSS_ARGUMENTS = {
    "from_logits": CROSSENTROPIES,
    "label_smoothing": CROSSENTROPIES[1:],
    "delta": ("huber",),
    "alpha": (FOCAL,),
    "gamma": (FOCAL,),
    "index": (OUTPUT,),
}
LOSSES_WITHOUT_TARGETS = ("sum_of_squares", "sum", OUTPUT)
INITIALIZERS = (
    "zeros",
    "ones",
    "random_normal",
    "random_uniform",
    "truncated_normal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
)
# The configuration's own, if schemes to initialize by are chosen.
CONFIGURED = "configured"
# What data.scale takes in place of a number.
SYMMETRIC, NORMALIZE = "symmetric", "normalize"
REDUCTIONS = ("mean", "sum")
DTYPES = ("float32", "float64")
# Tensors of layers, and what is not one tensor.
BLOCKS = (
    *("kernel", "bias", "gamma", "beta", "alpha", "depthwise_kernel", "pointwise_kernel"),
    *("layer", "input", "network"),
)
# Blocks that do not belong to a layer, so that no layer may have their names.
RESERVED_NAMES = ("input", "network")
# Beyond, a product more says nothing more, and to list them takes memory.
MOST_PROBES = 10**6
# Draws of one initializer: more change no digit that is shown.
MOST_SEEDS = 1000
# auto: entries while that is affordable, probes beyond.
CHECK_METHODS = ("auto", "form", "probes", "entries")
# auto: exact if factors or few eigenvalues are at hand, else cg or minres.
SOLVERS = ("auto", "exact", "minres", "cg")
# What a system is made of: H, G, and what stands for them (hesscli approximate).
MATRICES = (
    *("hessian", "gauss-newton", "kfac", "kfac-reduce", "kfac-empirical", "kfra", "ekfac"),
    *("best-kronecker", "diagonal", "empirical"),
)
WITNESSES = ("chain_rule", "autodiff", "finite")
DEFAULT_WITNESSES = ("chain_rule", "autodiff")
