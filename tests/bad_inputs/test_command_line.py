"""Every mistake on the command line is one line of ours, and leaves nothing behind."""

import shlex

import pytest

from gradstab.cli import main

pytestmark = [
    pytest.mark.cases,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MODULE = """
import jax, jax.numpy as jnp, numpy as np
X, P = jnp.ones((4, 3)), jnp.eye(3)
def f(p, x): return jnp.tanh(x @ p)
def fine(): return f, P, X
number = 3
def needs(a): return fine()
def nothing(): return None
def boom(): raise RuntimeError("my own")
def one(): return (f,)
def five(): return (*fine(), 1, 2)
def lossnumber(): return (*fine(), 3)
def losstext(): return (*fine(), "mse")
def losses(): return (*fine(), lambda y: y)
def lossnone(): return (*fine(), lambda y: None)
def lossraises(): return (*fine(), lambda y: 1 / 0)
def noparams(): return (lambda p, x: x), None, X
def shapes(): return f, P, jnp.ones((4, 5))
def scalar(): return (lambda p, x: (x @ p).sum()), P, X
def text(): return (lambda p, x: "hello"), P, X
def none(): return (lambda p, x: None), P, X
def ints(): return (lambda p, x: jnp.argmax(x @ p, -1)), P, X
def two(): return (lambda p, x: (x @ p, x @ p @ p)), P, X
def empty(): return f, P, jnp.ones((0, 3))
def lists(): return f, P, [[1.0, 2.0, 3.0]] * 4
def words(): return f, P, np.array([["a"] * 3] * 4)
def objects(): return f, P, np.array([[None] * 3] * 4)
def leaves(): raise SystemExit(5)
def raises():
    def g(p, x): raise KeyError("inside")
    return g, P, X
"""

# What is typed after `gradstab`, and a part of what is said.
MISUSE = """
analyze --model mpl | no model named 'mpl'
analyze --depth 0 | depth must be a whole number from 1, got 0
analyze --depth -3 | depth must be a whole number from 1
analyze --width 0 | width must be a whole number from 1
analyze --widths 5 0 | widths must be a whole number from 1
analyze --widths 5 --depth 2 | give widths, or depth and width
analyze --depth 99999999999999999999 | of memory are at hand
analyze --depth 100000000 --width 80 | give a smaller width or depth
analyze --width 1000000 | of memory are at hand
analyze --width 1000000000 --depth 2 | of memory are at hand
analyze --model lstm --width 1000000 | of memory are at hand
analyze --model rnn --width 10000000 | of memory are at hand
analyze --model resnet --width 1000000 | of memory are at hand
analyze --model transformer --width 1000000 | of memory are at hand
analyze --widths 1000000 1000000 | of memory are at hand
train --width 1000000 | of memory are at hand
train --depth 0 | depth must be a whole number from 1
train --model lstm --kernel-size 3 | has no option kernel_size
analyze --model resnet --kernel-size 0 | kernel_size must be a whole number from 1
analyze --model resnet --kernel-size -3 | kernel_size must be a whole number from 1
analyze --norm group --num-groups 0 | num_groups must be a whole number from 1
analyze --norm group --num-groups 7 --width 10 --depth 2 | into 7 equal groups
analyze --num-groups 7 | of norm='group'
analyze --norm batch --norm-momentum 2 | norm_momentum must be a number from 0 to 1
analyze --norm batch --norm-momentum nan | norm_momentum must be a number from 0 to 1
analyze --norm bach | known: batch, layer
analyze --norm-output True | needs a norm
analyze --seed -1 | --seed must be a whole number from 0
analyze --seed 18446744073709551616 | --seed must be a whole number from 0
analyze --seed 4294967296 | --seed must be a whole number from 0 to 4294967295
analyze --dropout 1 | dropout must be a number from 0 below 1
analyze --dropout -0.1 | dropout must be a number from 0 below 1
analyze --dropout nan | dropout must be a number from 0 below 1
analyze --slope 0.1 | slope is of leaky_relu
analyze --activation leaky_relu --slope nan | slope must be a finite number
analyze --activation leaky_relu --slope inf | slope must be a finite number
analyze --activation swish | no activation named 'swish'
analyze --init mean_field | 'mean_field' needs a number
analyze --init mean_field:-1 | is negative; expected sigma_w
analyze --init mean_field:x | 'x' is no number
analyze --init mean_field:nan | 'nan' is no number
analyze --init normal:-2 | is negative
analyze --init normal:1e400 | is no number
analyze --init he_normal:-1 | is negative
analyze --init zeros:3 | 'zeros' takes no number
analyze --init looks_linear --depth 2 --width 7 | Use an even width
analyze --init chrono_bias:0 | give the number of steps
analyze --init delta_orthogonal | one to three window axes
analyze --init : | no initialiser named ''
analyze --bias-init foo | no initialiser named 'foo'
analyze --head-init he | no initialiser named 'he'
analyze --model rnn --recurrent-init foo | no initialiser named 'foo'
analyze --model lstm --num-heads 2 | 'lstm' has no option num_heads
analyze --causal True | has no option causal
analyze --model transformer --num-heads 7 | num_heads=7 does not divide width=64
analyze --model transformer --num-heads 0 | num_heads must be a whole number from 1
analyze --model transformer --mlp-width 0 | mlp_width must be a whole number from 1
analyze --model lstm --forget-bias nan | forget_bias must be a finite number
analyze --model lstm --forget-bias 1 --bias-init zeros | give forget_bias or bias_init
analyze --model resnet --residual-scale inf | residual_scale must be a finite number
analyze --aux-heads 7 --depth 2 --width 8 | aux_heads names the layers [7]
analyze --aux-heads -1 --depth 2 --width 8 | aux_heads must be a whole number from 0
analyze --data nosuch | no data set named 'nosuch'
analyze --data copy-memory | --model must be 'lstm', 'rnn' or 'transformer'
train --data copy-memory --model resnet | --model must be 'lstm', 'rnn' or 'transformer'
analyze --data adding --time-steps 0 | time_steps must be a whole number from 1
analyze --data adding --time-steps -5 | time_steps must be a whole number from 1
analyze --num-train 0 | num_train must be a whole number from 1
analyze --num-train -5 | num_train must be a whole number from 1
analyze --num-train 100000 | give a number from 1
analyze --data mnist | train-images-idx3-ubyte
analyze --batch-size 0 | --batch-size must be a whole number from 1
analyze --batch-size -5 | --batch-size must be a whole number from 1
analyze --batch-size 100000 | is above the 1297 training examples
analyze --examples 0 | examples must be a whole number from 1
analyze --examples -1 | examples must be a whole number from 1
analyze --top-k 0 | top_k must be a whole number from 1
analyze --max-dense -1 | max_dense must be a whole number from 0
analyze --max-bytes 1 | max_bytes must be at least 2**20
analyze --spectra-on gpu | spectra_on must be 'auto', 'device' or 'host'
analyze --max-seconds 0 | max_seconds must be a number above 0
analyze --max-seconds nan | max_seconds must be a number above 0
analyze --depth 2 --width 8 --layers nosuch | input, blocks, head
analyze --depth 2 --width 8 --layers blocks.( | is no regular expression
analyze --depth 2 --width 8 --layers nosuch.* | matches no layer
analyze --depth 2 --width 8 --boundaries ( | boundaries
analyze --depth 2 --width 8 --boundaries nosuch | matches no parameter path
analyze --ensemble 0 | --ensemble must be a whole number from 1
analyze --ensemble -2 | --ensemble must be a whole number from 1
analyze --ensemble 2 --checkpoint run | is of a network as it is initialised
analyze --mode test | --mode must be 'train' or 'eval'
analyze --depth 2 --width 8 --precision float16 | precision must be 'float64', 'own'
analyze --checkpoint nowhere | has no config.json
analyze --checkpoint afile | has no config.json
analyze --checkpoint adir | has no config.json
analyze --checkpoint adir --depth 3 | --depth: of a new model
analyze --checkpoint adir --data mnist --init zeros | --init, --data
analyze --step 3 | --step is of a --checkpoint
analyze --json exists.json | exists.json exists
analyze --json adir | adir is a folder
analyze --json afile/x.json | afile is a file and no folder
analyze --plot exists.json | .png
analyze --plot p.xyz | not as .xyz
analyze --plot noext | not as a file without a suffix
analyze --plot there.png | there.png exists
analyze --plot afile/p.png | afile is a file and no folder
analyze --out afile | afile is a file and no folder
analyze --out adir --json x.json | give --json or --out
analyze --fail-on bad | --fail-on must be 'broken'
analyze --output 0 | --output: of a target
analyze --apply-kwargs a=1 | --apply-kwargs: of a target
analyze --no-batched | --no-batched: of a target
analyze user:fine --depth 3 | --depth: of gradstab's own models
analyze user:fine --model lstm | --model: of gradstab's own models
analyze user:fine --data mnist | --data: of gradstab's own models
analyze user:fine --num-train 3 | --num-train: of gradstab's own models
analyze user:fine --batch-size 3 | --batch-size: of gradstab's own models
analyze user:fine --mode eval | --mode: of gradstab's own models
analyze user:fine --ensemble 3 | --ensemble: of gradstab
analyze user:fine --checkpoint adir | a target or --checkpoint
analyze user:fine --output 5 | has no part '5'
analyze user:two --output 5 | the result has 2 parts
analyze user:fine --apply-kwargs nonsense | not of the form name=value
analyze user.py:fine | give user:fine, without .py
analyze ./user:fine | not of the form package.module:function
analyze ..user:fine | not of the form package.module:function
analyze user | not of the form package.module:function
analyze user: | not of the form package.module:function
analyze :fine | not of the form package.module:function
analyze user:fine:fine | not of the form package.module:function
analyze user.sub:fine | there is no module 'user.sub'
analyze nosuch:f | there is no module 'nosuch'
analyze user:nosuch | has no 'nosuch'
analyze user:number | is of type int, and no function
analyze user:needs | is called without arguments
analyze user:leaves | called sys.exit(5)
analyze user:nothing | it returned NoneType
analyze user:one | must return (apply, params, inputs[, loss])
analyze user:five | must return (apply, params, inputs[, loss])
analyze user:lossnumber | loss must be a function
analyze user:losstext | loss must be a function
analyze user:losses | must return a scalar, got shape (4, 3)
analyze user:lossnone | must return a scalar, got None
analyze user:noparams | does not depend on the inputs
analyze user:scalar | without the 4 examples on its leading axis
analyze user:text | the model returns a str
analyze user:none | returns 0 floating arrays
analyze user:ints | returns 0 floating arrays
analyze user:two | say which one to differentiate
analyze user:empty | at least one, on its leading axis
analyze user:lists | got shapes ()
analyze user:words | inputs[0] is an array
analyze user:objects | inputs[0] is an array
check user:fine | must return {name: (f, args)}
check user:nothing | must return {name: (f, args)}
check user:nosuch | has no 'nosuch'
check user:number | is of type int
check user:needs | is called without arguments
check user | not of the form package.module:function
check user.py:fine | give user:fine, without .py
check user:fine --rtol 0 | --rtol must be a number above 0 below 1
check user:fine --rtol -1 | --rtol must be a number above 0 below 1
check user:fine --rtol nan | --rtol must be a number above 0 below 1
check user:fine --max-seconds 0 | --max-seconds must be a number above 0
check user:fine --seed -1 | --seed must be a whole number from 0
check user:fine --json adir | adir is a folder
check user:fine --json exists.json | exists.json exists
check user:fine --json afile/x.json | afile is a file and no folder
"""

# What the user's own code raises is said in a line with its place.
RAISED = """
analyze user:boom | RuntimeError: my own (user.py, line 9, in boom)
analyze user:raises | KeyError: inside (user.py
analyze user:lossraises | ZeroDivisionError: division by zero (user.py
analyze user:shapes | TypeError: dot_general requires
analyze user:fine --apply-kwargs a=1 | unexpected keyword argument 'a'
analyze broken:f | SyntaxError
analyze imports:f | No module named 'nowhere_at_all'
check user:boom | raised RuntimeError: my own
check broken:f | raised SyntaxError
check imports:f | raised ModuleNotFoundError
"""


def _rows(table):
    return [line.split(" | ") for line in table.strip().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "user.py").write_text(MODULE)
    (folder / "broken.py").write_text("def (:\n")
    (folder / "imports.py").write_text("import nowhere_at_all\n")
    (folder / "adir").mkdir()
    for name in ("afile", "exists.json", "there.png"):
        (folder / name).write_text("mine")
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(folder, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.chdir(folder)
    monkeypatch.setenv("GRADSTAB_DATA_DIR", str(folder / "nothing"))
    monkeypatch.setattr("urllib.request.urlopen", no_network)


def _files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts and path != folder / "results"
    }


def _said(line, folder, capsys):
    """The exit status and the only line that was written."""
    before = _files(folder)
    status = main(shlex.split(line.replace("(", "'('")))
    out, err = capsys.readouterr()
    assert _files(folder) == before, "something was written, or lost"
    assert out == ""
    (said,) = err.splitlines()
    assert said.startswith("gradstab: ")
    return status, said


@pytest.mark.parametrize(("line", "words"), _rows(MISUSE))
def test_a_mistake_is_one_line_that_says_what_to_write(line, words, folder, capsys):
    status, said = _said(line, folder, capsys)
    assert words in said
    assert status == 2


@pytest.mark.parametrize(("line", "words"), _rows(RAISED))
def test_what_the_users_code_raises_is_a_line_too(line, words, folder, capsys):
    status, said = _said(line, folder, capsys)
    assert words in said
    assert status == 3
