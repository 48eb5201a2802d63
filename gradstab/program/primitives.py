"""What each primitive of JAX is: one table, and nowhere else a list of their names.

A new primitive, or a new name of an old one, is a row here. What is not in the table is
none of these kinds: it is taken for what is not known. The programs inside of equations
(scans, branches, rules) are taken apart in `gradstab._compat`.
"""

import enum
import functools

from gradstab._compat import JaxprEqn


class Kind(enum.Enum):
    """What a primitive may be, several at once."""

    LINEAR = "linear"
    """Of single entries, linear in each operand, or in the first (a quotient)."""
    PARTS = "parts"
    """Takes complex numbers apart, or puts them together."""
    CURVED = "curved"
    """A smooth function of single entries that is not linear."""
    PIECEWISE = "piecewise"
    """Of single entries, linear or constant piece by piece."""
    CONTRACTION = "contraction"
    """A product that sums over axes; with a parameter it makes a layer."""
    RESHAPES = "reshapes"
    """Gives entries other places; some may be repeated."""
    MOVES = "moves"
    """Gives every entry a place of its own, perhaps in another dtype."""
    PIECES = "pieces"
    """Reads or writes a part of an array, from a place that is computed."""
    BINARY = "binary"
    """Has a derivative of zeros and ones, but for the sign."""
    FREE = "free"
    """Makes no numbers: it is fused with what uses the result, or does nothing."""
    COSTLY = "costly"
    """Takes tens of operations for an entry."""
    EXACT = "exact"
    """Moves numbers, chooses among them or compares them: nothing is rounded."""
    NORMWISE = "normwise"
    """Its rounding errors are relative to the largest entry, not to each."""
    RUNNING = "running"
    """Keeps the shape, and yet an entry depends on many."""
    SILENT = "silent"
    """Is no part of the name of what it stands in."""
    LOOP = "loop"
    """Runs a program again and again."""
    FOREIGN = "foreign"
    """Runs code that is no program of JAX's: kernels, functions of the host."""
    OPAQUE = "opaque"
    """Holds functions, and not only programs, that say what it does."""
    ONE_DTYPE = "one_dtype"
    """Is another operation in another dtype."""
    SAMPLER = "sampler"
    """One equation, and some hundred operations: draws by rejection."""
    COMBINES = "combines"
    """Gives all devices along an axis of a mesh the same, made of what they have."""
    EXCHANGES = "exchanges"
    """Gives devices along an axis of a mesh other numbers than they had."""
    PASSES = "passes"
    """Of those two: makes no new numbers, but hands on what there is."""
    RANDOM = "random"
    """Draws without a key."""


# One row for each primitive: its name, and its kinds.
_TABLE = """
add                    linear
add_any                linear
convert_element_type   linear moves binary free silent
copy                   linear moves binary free exact silent
div                    linear
mul                    linear
neg                    linear binary exact
sub                    linear
complex                parts exact
conj                   parts exact
imag                   parts exact
real                   parts exact
acos                   curved costly
acosh                  curved
asin                   curved costly
asinh                  curved
atan                   curved costly
atan2                  curved costly
atanh                  curved
cbrt                   curved costly
cos                    curved costly
cosh                   curved costly
digamma                curved
erf                    curved costly
erf_inv                curved costly
erfc                   curved costly
exp                    curved costly
exp2                   curved costly
expm1                  curved costly
integer_pow            curved
lgamma                 curved costly
log                    curved costly
log1p                  curved costly
logistic               curved costly
pow                    curved costly
rsqrt                  curved costly
sin                    curved costly
sinh                   curved costly
sqrt                   curved costly
square                 curved
tan                    curved costly
tanh                   curved costly
abs                    piecewise exact
and                    piecewise
ceil                   piecewise exact
clamp                  piecewise exact
eq                     piecewise
floor                  piecewise exact
ge                     piecewise
gt                     piecewise
is_finite              piecewise exact
le                     piecewise
lt                     piecewise
max                    piecewise exact
min                    piecewise exact
ne                     piecewise
nextafter              piecewise one_dtype
not                    piecewise
or                     piecewise
reduce_precision       piecewise
rem                    piecewise
round                  piecewise exact
select_n               piecewise exact
sign                   piecewise exact
stop_gradient          piecewise free exact
xor                    piecewise
conv_general_dilated   contraction
dot_general            contraction
ragged_dot_general     contraction
broadcast_in_dim       reshapes moves binary free exact silent
name                   reshapes free exact
reshape                reshapes moves binary free exact silent
rev                    reshapes moves exact
squeeze                reshapes moves binary free exact
transpose              reshapes moves binary free exact
concatenate            moves binary exact
expand_dims            moves free exact
slice                  moves binary free exact
stack                  moves
dynamic_slice          pieces exact
dynamic_update_slice   pieces exact
gather                 pieces exact
scatter                pieces exact
scatter-add            pieces running
all_gather             combines passes
all_gather_invariant   combines passes
all_to_all             exchanges passes
argmax                 exact
argmin                 exact
bitcast_convert_type   exact one_dtype
cholesky               normwise
copy_p                 exact
cumlogsumexp           running
cumprod                running
cumsum                 running
custom_linear_solve    normwise
custom_transpose_call  opaque
custom_vmap_call       opaque
device_put             exact
eig                    normwise
eigh                   normwise
ffi_call               foreign opaque one_dtype
fft                    normwise
geqrf                  normwise
hessenberg             normwise
householder_product    normwise
io_callback            foreign opaque one_dtype
iota                   free exact
linear_call            opaque
lu                     normwise
optimization_barrier   exact
pad                    exact
pallas_call            foreign opaque
pbroadcast             combines passes
pmax                   combines
pmin                   combines
ppermute               exchanges passes
psum                   combines
psum_invariant         combines
pure_callback          foreign opaque one_dtype
pvary                  exact
qr                     normwise
random_bits            costly
random_gamma           sampler
random_gamma_grad      sampler
reduce_max             exact
reduce_min             exact
reduce_scatter         exchanges
reduce_sum             binary
rng_bit_generator      random
rng_uniform            random
scan                   loop
scatter_add            running
schur                  normwise
sharding_constraint    exact
sort                   exact
split                  exact
svd                    normwise
triangular_solve       normwise
tridiagonal            normwise
tridiagonal_solve      normwise
while                  normwise loop
"""

# A function of single entries: of these kinds.
_OF_ENTRIES = (Kind.LINEAR, Kind.PARTS, Kind.CURVED, Kind.PIECEWISE)


@functools.cache
def _kinds() -> dict[str, frozenset[Kind]]:
    rows = map(str.split, _TABLE.strip().splitlines())
    return {name: frozenset(map(Kind, kinds)) for name, *kinds in rows}


@functools.cache
def names(kind: Kind, /) -> frozenset[str]:
    """The names of all primitives of a kind.

    >>> sorted(names(Kind.CONTRACTION))
    ['conv_general_dilated', 'dot_general', 'ragged_dot_general']
    """
    return frozenset(name for name, kinds in _kinds().items() if kind in kinds)


def name_of(eqn: JaxprEqn, /) -> str:
    """The name of an equation's primitive, for those who read it."""
    return eqn.primitive.name


def is_a(eqn: JaxprEqn, *kinds: Kind) -> bool:
    """Whether an equation is of one of these kinds."""
    return not _kinds().get(eqn.primitive.name, frozenset()).isdisjoint(kinds)


def is_named(eqn: JaxprEqn, *wanted: str) -> bool:
    """Whether the primitive is one of these, for what only it does."""
    return eqn.primitive.name in wanted


def acts_on_entries(eqn: JaxprEqn, /) -> bool:
    """Whether every entry of the result comes from one entry of each operand."""
    return is_a(eqn, *_OF_ENTRIES)


def reduces(eqn: JaxprEqn, /) -> bool:
    """Whether it sums over axes, or takes the largest, or the like."""
    return eqn.primitive.name.startswith("reduce_") and not acts_on_entries(eqn)


def combines_by_program(eqn: JaxprEqn, /) -> bool:
    """Whether the program inside only says how two numbers are combined."""
    return eqn.primitive.name.startswith(("reduce", "scatter", "sort"))


def draws(eqn: JaxprEqn, /) -> bool:
    """Whether it makes, splits or uses random keys."""
    return eqn.primitive.name.startswith("random_")
