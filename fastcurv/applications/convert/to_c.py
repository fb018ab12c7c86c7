"""A network as a C99 file that computes its outputs and their derivatives with respect to the
inputs.
"""

from __future__ import annotations

import itertools
import os
import re
import textwrap
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from ...common.checks import short_repr
from ...common.errors import type_phrase
from ...common.files import open_for_atomic_write
from ...network.mlp import MLP
from ...structure.tables import ACTIVATIONS, activation_spec

LEAKY_RELU_SLOPE = ACTIVATIONS["leaky_relu"].leak
# Key: an activation. Value: C statements that set phi and, in `first` and `second`, phi' and phi''
# of a number z.
C_FORMULAS = {
    "identity": "phi = z; first = 1; second = 0;",
    "relu": "phi = z > 0 ? z : 0; first = z > 0; second = 0;",
    "leaky_relu": f"first = z > 0 ? 1 : {LEAKY_RELU_SLOPE}; phi = first * z; second = 0;",
    "tanh": """\
if (fabs(z) < 0.5) { /* elsewhere 1 - phi^2 would lose the digits of phi' */
            phi = tanh(z);
            first = 1 - phi * phi;
        } else {
            e = exp(-2 * fabs(z));
            phi = (z > 0 ? 1 - e : e - 1) / (1 + e);
            first = 4 * e / ((1 + e) * (1 + e));
        }
        second = -2 * phi * first;""",
    "sigmoid": """\
e = exp(-fabs(z));
        phi = (z > 0 ? 1 : e) / (1 + e);
        first = e / ((1 + e) * (1 + e));
        t = expm1(-fabs(z));
        second = first * (z > 0 ? t : -t) / (1 + e);""",
    "softplus": """\
e = exp(-fabs(z));
        phi = (z > 0 ? z : 0) + log1p(e);
        first = (z > 0 ? 1 : e) / (1 + e);
        second = e / ((1 + e) * (1 + e));""",
    "silu": """\
e = exp(-fabs(z));
        s = (z > 0 ? 1 : e) / (1 + e);
        t = e / ((1 + e) * (1 + e));
        phi = z * s;
        first = s + z * t;
        second = t * (2 + z * (z > 0 ? e - 1 : 1 - e) / (1 + e));""",
    "gelu": """\
e = 0.5 * erfc(-z * 0.70710678118654752440);
        s = 0.39894228040143267794 * exp(-0.5 * z * z);
        phi = z * e;
        first = e + z * s;
        second = s > 0 ? s * (2 - z * z) : 0;""",
    "elu": """\
e = z > 0 ? 0 : expm1(z);
        phi = z > 0 ? z : e;
        first = z > 0 ? 1 : exp(z);
        second = z > 0 ? 0 : first;""",
}

# Words of C up to C23, and names of its library, that cannot name the function. Patterns describe
# families of names. C has variants of its mathematical functions for other types, such as sinf,
# sinl and sinf32x.
C_KEYWORDS = (
    "alignas", "alignof", "asm", "auto", "bool", "break", "case", "char", "const", "constexpr",
    "continue", "default", "do", "double", "else", "enum", "extern", "false", "float", "for",
    "goto", "if", "inline", "int", "linux", "long", "main", "nullptr", "register", "restrict",
    "return", "short", "signed", "sizeof", "static", "static_assert", "struct", "switch",
    "thread_local", "true", "typedef", "typeof", "typeof_unqual", "union", "unix", "unreachable",
    "unsigned", "void", "volatile", "while",
)  # fmt: skip
C_MATH_FUNCTIONS = (
    "(a?(cos|sin|tan)|atan2)(h|pi)?", "atan2", "canonicalize", "cbrt", "ceil", "compoundn",
    "copysign", "drem", "erfc?", "exp(10|2)?(m1)?", "fabs", "fdim", "finite", "floor", "fma",
    "f(max|min)(imum)?(_?mag)?(_num)?", "fmod", "frexp", "gamma", "[sg]etpayload(sig)?", "hypot",
    "[il]?logb", "llogb", "[jy][01n]", "ldexp", "lgamma", "l?l?(rint|round)", "log(10|2)?(p1|1p)?",
    "modf", "nan", "nearbyint", "next(after|toward|up|down)", "pow(10|n|r)?", "remainder",
    "remquo", "rootn", "roundeven", "rsqrt", "scalb(l?n)?", "significand", "sincos", "sqrt",
    "tgamma", "totalorder(mag)?", "trunc", "u?fromfpx?",
    "(f|d|f32x?|f64x?)(add|div|fma|mul|sqrt|sub)",
)  # fmt: skip
# other identifiers that headers of the C library declare
LIBC_IDENTIFIERS = (
    "abort", "l?l?abs", "aligned_alloc", "alloca", "ato[fil]", "bcmp", "bcopy", "bzero",
    "c(a?(cos|sin|tan)h?|abs|arg|exp|imag|log|pow|proj|real|sqrt)[fl]?", "calloc", "conj[fl]?",
    "(double|float|max_align|nullptr|ptrdiff|size|wchar)_t", "exit",
    r"fe(clear|get|hold|raise|set|test|update)\w*", "ffs", "fpclassify", "fput[cs]", "free",
    "fwrite", "gettext", "imaxabs", "r?index",
    "is(w?(alpha|alnum|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit)|canonical|"
    r"eqsig|finite|greater|inf|less|nan|normal|signaling|subnormal|unordered|zero)\w*",
    "malloc", "math_errhandling", "memchr", "memcmp", "mem(move|p?cpy|set)", "offsetof",
    "putc(har)?", "puts", "realloc", "signbit", "signgam", "stpcpy",
    "str(cat|chr|cmp|cpy|c?spn|dup|ftime|len|ncat|ncmp|ncpy|ndup|pbrk|rchr|str)",
    "tow?(upper|lower)", "v?[fs]?n?(printf|scanf)",
)  # fmt: skip
RESERVED_NAME_PATTERN = re.compile(
    rf"({'|'.join(C_KEYWORDS)}|{'|'.join(LIBC_IDENTIFIERS)}|"
    rf"({'|'.join(C_MATH_FUNCTIONS)})([fd](32|64|128)x?|[fl])?(_r)?|[WBAPQZ]\d+|"
    r"apply_\w*|(FP|HUGE|M|MATH|EXIT)_\w*|MAXFLOAT|NAN|S?NAN[FL]?\d*X?|INFINITY|NULL|jac|hess|null|"
    r"\w*__\w*|jac_\w*)"
)

C_TEMPLATE = Template("""\
/* $title
 *
 * void ${name}_outputs(const double *x, double *y, double *work)
 *     y: the $d_out outputs of a row x of $d_in inputs.
 * void ${name}_jacobian(const double *x, double *y, double *J, double *work)
 *     J[k * $d_in + i]: the derivative of output k in input i.
 * void ${name}_hessian(const double *x, const double *weights, double *y, double *J, double *H,
 *                      double *work)
 *     H[i * $d_in + j]: the second derivatives of the sum of outputs with these $d_out weights.
 *
 * work has room for ${NAME}_WORK numbers. Nothing is allocated and nothing is kept between calls,
 * so that threads may call at the same time, each with a work of its own. The functions at the end
 * are those that CasADi's external("$name", ...) calls. To compile: cc -std=c99 -O3 -c $file
 */
#include <math.h>
#include <stddef.h>

enum { ${NAME}_D_IN = $d_in, ${NAME}_D_OUT = $d_out, ${NAME}_WORK = $work };

void ${name}_outputs(const double *x, double *y, double *work);
void ${name}_jacobian(const double *x, double *y, double *J, double *work);
void ${name}_hessian(const double *x, const double *weights, double *y, double *J, double *H,
    double *work);

/* W of each layer, a row for each of its inputs, and b. */
$constants

/* GCC 12 with -O3 -mavx512f vectorises wrongly where it inlines multiply() before add(). */
#if defined(__GNUC__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE
#endif

/* out (n, m) = a (n, k) times w (k, m): four rows of w at a time, whose inner loop compilers turn
 * into vector instructions of any width. */
NOINLINE static void multiply(int n, int k, int m, const double *a, const double *w, double *out) {
    int r, u, q;
    for (r = 0; r < n; r++, a += k, out += m) {
        for (u = 0; u < m; u++) out[u] = 0;
        for (q = 0; q + 4 <= k; q += 4) {
            const double *w0 = w + (size_t)q * m, *w1 = w0 + m, *w2 = w1 + m, *w3 = w2 + m;
            const double x0 = a[q], x1 = a[q + 1], x2 = a[q + 2], x3 = a[q + 3];
            for (u = 0; u < m; u++)
                out[u] += (x0 * w0[u] + x1 * w1[u]) + (x2 * w2[u] + x3 * w3[u]);
        }
        for (; q < k; q++)
            for (u = 0; u < m; u++) out[u] += a[q] * w[(size_t)q * m + u];
    }
}

static double dot(int n, const double *a, const double *b) {
    double sum[8] = {0}, rest = 0;
    int i, j;
    for (i = 0; i + 8 <= n; i += 8)
        for (j = 0; j < 8; j++) sum[j] += a[i + j] * b[i + j];
    for (; i < n; i++) rest += a[i] * b[i];
    return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7])) + rest;
}

$helpers$activations\
/* A layer's matrices have a column for each unit: row 0 of Z is z, and row 1 + i its derivative
 * in input i; A has the same of the layer's output. Tangents of the first layer are W itself. */
static void forward(const double *x, int inputs, double *work) {
    const int n = 1 + inputs;
$forward    (void)n;
}

/* From the derivatives e of a sum of outputs in the last hidden layer's output: those in x, and
 * the Hessian where H is not NULL. */
static void backward(double *e, double *gradient, double *H, double *work) {
    double *d = work + $delta, *below = work + $below;
    int i, j;
    size_t p;
    if (H != NULL)
        for (p = 0; p < (size_t)$d_in * $d_in; p++) H[p] = 0;
$backward    for (i = 0; i < $d_in; i++) gradient[i] = e[i];
    if (H != NULL)
        for (i = 0; i < $d_in; i++)
            for (j = 0; j < i; j++) H[(size_t)i * $d_in + j] = H[(size_t)j * $d_in + i];
    (void)d, (void)below;
}

void ${name}_outputs(const double *x, double *y, double *work) {
    int k;
    forward(x, 0, work);
    for (k = 0; k < $d_out; k++) y[k] = work[$z + k];
}

void ${name}_jacobian(const double *x, double *y, double *J, double *work) {
    int i, k;
    forward(x, $inputs, work);
    for (k = 0; k < $d_out; k++) y[k] = work[$z + k];
    for (k = 0; k < $d_out; k++) {
$jacobian    }
}

void ${name}_hessian(const double *x, const double *weights, double *y, double *J, double *H,
    double *work) {
    double *e = work + $e;
    int i, k;
    forward(x, $d_in, work);
    for (k = 0; k < $d_out; k++) y[k] = work[$z + k];
    for (k = 0; k < $d_out; k++)
        for (i = 0; i < $d_in; i++) J[(size_t)k * $d_in + i] = $tangent;
    for (i = 0; i < $last; i++) e[i] = dot($d_out, W$n + (size_t)i * $d_out, weights);
    backward(e, work + $gradient, H, work);
}

/* For CasADi. */
typedef long long int casadi_int;
#define FUNCTION(f, inputs, outputs)                                                       \\
    casadi_int f##_n_in(void) { return inputs; }                                           \\
    casadi_int f##_n_out(void) { return outputs; }                                         \\
    int f##_work(casadi_int *args, casadi_int *results, casadi_int *iw, casadi_int *w) {   \\
        *args = inputs, *results = outputs, *iw = 0, *w = ${NAME}_WORK + $more;            \\
        return 0;                                                                          \\
    }                                                                                      \\
    const casadi_int *f##_sparsity_in(casadi_int i) { return SHAPES[i]; }
#define DECLARED(f)                                                                        \\
    casadi_int f##_n_in(void);                                                             \\
    casadi_int f##_n_out(void);                                                            \\
    int f##_work(casadi_int *, casadi_int *, casadi_int *, casadi_int *);                  \\
    const casadi_int *f##_sparsity_in(casadi_int);                                         \\
    const casadi_int *f##_sparsity_out(casadi_int);                                        \\
    int f(const double **, double **, casadi_int *, double *, int);

/* Dense matrices: rows, columns, 1. The last one has no entries. */
static const casadi_int X_SHAPE[] = {$d_in, 1, 1}, Y_SHAPE[] = {$d_out, 1, 1};
static const casadi_int J_SHAPE[] = {$d_out, $d_in, 1}, H_SHAPE[] = {$n_jacobian, $d_in, 1};
static const casadi_int NO_ENTRIES[3 + $d_out] = {$n_jacobian, $d_out};
static const casadi_int *const SHAPES[] = {X_SHAPE, Y_SHAPE, J_SHAPE};

DECLARED($name)
DECLARED(jac_$name)
DECLARED(jac_jac_$name)
FUNCTION($name, 1, 1)
FUNCTION(jac_$name, 2, 1)
FUNCTION(jac_jac_$name, 3, 2)
const casadi_int *${name}_sparsity_out(casadi_int i) { return i == 0 ? Y_SHAPE : NULL; }
const casadi_int *jac_${name}_sparsity_out(casadi_int i) { return i == 0 ? J_SHAPE : NULL; }
const casadi_int *jac_jac_${name}_sparsity_out(casadi_int i) {
    return i == 0 ? H_SHAPE : NO_ENTRIES;
}

/* A row that is not given is 0. */
static const double *row_of(const double **arg, double *room) {
    int i;
    for (i = 0; i < $d_in; i++) room[i] = arg[0] != NULL ? arg[0][i] : 0;
    return room;
}

int $name(const double **arg, double **res, casadi_int *iw, double *w, int mem) {
    if (res[0] != NULL) ${name}_outputs(row_of(arg, w + ${NAME}_WORK), res[0], w);
    (void)iw, (void)mem;
    return 0;
}

int jac_$name(const double **arg, double **res, casadi_int *iw, double *w, int mem) {
    double *x = w + ${NAME}_WORK, *y = x + $d_in, *J = y + $d_out;
    int i, k;
    if (res[0] != NULL) {
        ${name}_jacobian(row_of(arg, x), y, J, w);
        for (i = 0; i < $d_in; i++)
            for (k = 0; k < $d_out; k++) res[0][(size_t)i * $d_out + k] = J[(size_t)k * $d_in + i];
    }
    (void)iw, (void)mem;
    return 0;
}

int jac_jac_$name(const double **arg, double **res, casadi_int *iw, double *w, int mem) {
    double *e = w + $e, *H = w + ${NAME}_WORK + $d_in;
    int i, j, k;
    if (res[0] != NULL) {
        forward(row_of(arg, w + ${NAME}_WORK), $d_in, w);
        for (k = 0; k < $d_out; k++) {
            for (i = 0; i < $last; i++) e[i] = W$n[(size_t)i * $d_out + k];
            backward(e, w + $gradient, H, w);
            for (i = 0; i < $d_in; i++)
                for (j = 0; j < $d_in; j++)
                    res[0][((size_t)j * $d_in + i) * $d_out + k] = H[(size_t)i * $d_in + j];
        }
    }
    (void)iw, (void)mem;
    return 0;
}
""")

# Functions that some networks do not need. They are omitted if unused, because C compilers would
# warn.
C_HELPERS = {
    "add": """\
NOINLINE static void add(int n, const double *a, double *out) {
    int i;
    for (i = 0; i < n; i++) out[i] += a[i];
}

""",
    "scale": """\
/* out (n, m) = a (n, m), each row times p (m) */
static void scale(int n, int m, const double *a, const double *p, double *out) {
    int r, u;
    for (r = 0; r < n; r++)
        for (u = 0; u < m; u++) out[(size_t)r * m + u] = a[(size_t)r * m + u] * p[u];
}

""",
    "add_identity": """\
/* Add 1 to the tangent of each unit in the input of the same number. */
static void add_identity(int inputs, int m, double *out) {
    int i;
    for (i = 0; i < inputs; i++) out[(size_t)i * m + i] += 1;
}

""",
    "add_layer": """\
/* H += the sum over a layer's units of e phi'' times their tangents, above the diagonal. */
static void add_layer(
    int m, const double *D, const double *q, const double *e, double *d, double *H) {
    int i, j, u;
    for (i = 0; i < $d_in; i++) {
        for (u = 0; u < m; u++) d[u] = e[u] * q[u] * D[(size_t)i * m + u];
        for (j = i; j < $d_in; j++) H[(size_t)i * $d_in + j] += dot(m, d, D + (size_t)j * m);
    }
}

""",
    "go_back": """\
/* From e of a layer's output to that of its input; with a skip the input is added to the output. */
static void go_back(int k, int m, const double *w, const double *p, int skip, double *e, double *d,
    double *below) {
    int i, u;
    for (u = 0; u < m; u++) d[u] = e[u] * p[u];
    for (i = 0; i < k; i++) below[i] = dot(m, w + (size_t)i * m, d) + (skip ? e[i] : 0);
    for (i = 0; i < k; i++) e[i] = below[i];
}

""",
}

ACTIVATION_TEMPLATE = Template("""\
static void apply_$phi(int m, const double *in, double *out, double *p, double *q) {
    int u;
    for (u = 0; u < m; u++) {
        const double z = in[u];
        double phi, first, second$names;
        $body
        out[u] = phi, p[u] = first, q[u] = second;
    }
}

""")


def to_c(model: Any, theta: Any, path: Any, *, name: str = "net", statistics: Any = None) -> None:
    """Write the network as a C99 file without dependencies that computes outputs, and their
    Jacobian and Hessian with respect to the inputs.

    Parameters
    ----------
    model : MLP
        The network, with built-in activations.
    theta : array_like, shape (n_params,)
        The parameters, which become constants of the file.
    path : str or path-like
        The file to write, such as ``"net.c"``.
    name : str
        The C name of the function, and the prefix of all other names.
    statistics : optional
        With batch normalisation, the result of ``model.statistics`` for the training rows.

    Raises
    ------
    TypeError
        If `model` is not an MLP, or `path` is not a path.
    ValueError
        For user-defined activations, which are Python functions; for a workspace of 2^31 numbers or
        more; or for a name that C or its library uses. Compilers reject further names of their own.

    See Also
    --------
    MLP.input_jacobian, MLP.input_hessian : The derivatives in Python.
    from_sklearn : Folds the scalers of a fitted pipeline into the network.

    Notes
    -----
    The functions compute in double precision, allocate nothing, are reentrant, and agree with
    Python up to rounding. CasADi loads the compiled library with ``external("net", "./net.so")``
    and finds first and second derivatives in it.

    Examples
    --------
    >>> import os, tempfile, fastcurv as fc
    >>> model = fc.MLP([2, 8, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "net.c")
    ...     fc.to_c(model, model.init(seed=0), path)
    ...     print(open(path).read().count("net_hessian(") > 0)
    True
    """
    if not isinstance(model, MLP):
        raise TypeError(f"model must be an MLP, got {type_phrase(model)}.")
    fits = isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,50}", name)
    words = re.findall(
        r"\w+", " ".join([C_TEMPLATE.template, *C_HELPERS.values(), *C_FORMULAS.values()])
    )
    if not fits or name in words or RESERVED_NAME_PATTERN.fullmatch(name):
        raise ValueError(
            "name must be a C identifier of at most 51 letters that neither C nor the file uses, "
            f"got {short_repr(name)}."
        )
    model, theta = model.fold_batch_norm(theta, statistics)
    if workspace_offsets(model)[1] >= 2**31:
        raise ValueError(
            "model must need a workspace of fewer than 2^31 numbers, got the sizes "
            f"{short_repr(model.sizes)}. Use fewer inputs or units."
        )
    own = [phi for phi in model.activation if phi not in C_FORMULAS]
    if own:
        raise ValueError(
            f"model must have built-in activations, got {own[0]!r}, a Python function that C "
            "cannot call."
        )
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or an os.PathLike, got {type_phrase(path)}.")
    file = ascii(Path(path).name)[1:-1]
    text = c_source(model, model.check_theta(theta), name, file).encode("ascii")
    with open_for_atomic_write(path) as out:
        out.write(text)


def c_source(model: MLP, theta: np.ndarray, name: str, file: str) -> str:
    """Return the C source of the network as a string. `name` is the C name of the function, and
    `file` the name of the file, for the comment at its head.
    """
    d_in = model.sizes[0]
    d_out = model.sizes[-1]
    n = len(model.shapes)
    at, work = workspace_offsets(model)
    layers = model.unflatten(theta)
    constants = [c_array_definition(f"W{l}", W.T) for l, (W, _) in enumerate(layers, start=1)]
    constants += [
        c_array_definition(f"B{l}", b) for l, (_, b) in enumerate(layers, start=1) if model.bias
    ]
    forward, backward = forward_backward_statements(model, at)
    tangent = f"work[{at[f'Z{n}']} + (1 + (size_t)i) * {d_out} + k]"
    if n == 1:
        tangent = f"W1[(size_t)i * {d_out} + k]"
    if d_in <= d_out:
        jacobian = [f"for (i = 0; i < {d_in}; i++) J[(size_t)k * {d_in} + i] = {tangent};"]
    else:
        row = f"W{n}[(size_t)i * {d_out} + k]"
        jacobian = [
            f"for (i = 0; i < {model.sizes[-2]}; i++) work[{at['e']} + i] = {row};",
            f"backward(work + {at['e']}, J + (size_t)k * {d_in}, NULL, work);",
        ]
    used = "".join(forward + backward)
    helpers = "".join(text for called, text in C_HELPERS.items() if f"{called}(" in used)
    return C_TEMPLATE.substitute(
        at,
        title=repr(model),
        name=name,
        NAME=name.upper(),
        file=file,
        d_in=d_in,
        d_out=d_out,
        n=n,
        last=model.sizes[-2],
        work=work,
        more=d_in + d_out + d_in * max(d_in, d_out),
        n_jacobian=d_in * d_out,
        z=at[f"Z{n}"],
        inputs=d_in if d_in <= d_out else 0,
        tangent=tangent,
        constants="\n".join(constants),
        helpers=Template(helpers).substitute(d_in=d_in),
        activations="".join(c_activation_source(phi) for phi in sorted(set(model.activation))),
        forward=indent_statements(forward, 4),
        backward=indent_statements(backward, 4),
        jacobian=indent_statements(jacobian, 8),
    )


def workspace_offsets(model: MLP) -> tuple[dict[str, int], int]:
    """Return a dict with the offset of each matrix in the C array `work`, and the length of
    `work`.
    """
    n = len(model.shapes)
    tangents = 1 + model.sizes[0]
    widest = max(model.sizes)
    hidden = max(model.sizes[1:-1], default=0)
    parts = {f"Z{l}": tangents * m for l, m in enumerate(model.sizes[1:], start=1)}
    parts |= {f"{x}{l}": model.sizes[l] for l in range(1, n) for x in "PQ"}
    parts |= {"A0": tangents * hidden, "A1": tangents * hidden, "gradient": model.sizes[0]}
    parts |= dict.fromkeys(("e", "delta", "below"), widest)
    ends = list(itertools.accumulate(parts.values()))
    return dict(zip(parts, [0, *ends])), ends[-1]


def forward_backward_statements(model: MLP, at: dict[str, int]) -> tuple[list[str], list[str]]:
    """Return the C statements of the forward pass and of the backward pass, as two lists of lines.
    `at` holds the offsets of `workspace_offsets`.
    """
    forward = []
    n = len(model.shapes)
    backward: list[str] = []
    for l, (m, k) in enumerate(model.shapes, start=1):
        Z, A, below = (f"work + {at[x]}" for x in (f"Z{l}", f"A{l % 2}", f"A{(l - 1) % 2}"))
        rows, given = ("1", "x") if l == 1 else ("n", below)
        forward.append(f"multiply({rows}, {k}, {m}, {given}, W{l}, {Z});")
        if model.bias:
            forward.append(f"add({m}, B{l}, {Z});")
        if l == n:
            break
        phi = model.activation[l - 1]
        P = f"work + {at[f'P{l}']}"
        Q = f"work + {at[f'Q{l}']}"
        D = "W1" if l == 1 else f"{Z} + {m}"
        skip = model.skips[l - 1]
        forward.append(f"apply_{phi}({m}, {Z}, {A}, {P}, {Q});")
        forward.append(f"scale(inputs, {m}, {D}, {P}, {A} + {m});")
        if skip and l == 1:
            forward.append(f"add({m}, x, {A});")
            forward.append(f"add_identity(inputs, {m}, {A} + {m});")
        elif skip:
            forward.append(f"add(n * {m}, {below}, {A});")
        step = [f"go_back({k}, {m}, W{l}, {P}, {int(skip)}, e, d, below);"]
        if activation_spec(phi).bend:
            step.insert(0, f"if (H != NULL) add_layer({m}, {D}, {Q}, e, d, H);")
        backward = step + backward
    return forward, backward


def c_array_definition(name: str, numbers: np.ndarray) -> str:
    """Return the C definition of a constant array `name` with the given numbers, row by row,
    printed such that a C compiler reads the same doubles.
    """
    text = ", ".join(repr(float(x)) for x in numbers.ravel())
    body = textwrap.fill(text, 96, initial_indent="    ", subsequent_indent="    ")
    return f"static const double {name}[] = {{\n{body}\n}};"


def c_activation_source(phi: str) -> str:
    """Return the C source of the function that applies activation `phi` to a layer."""
    body = C_FORMULAS[phi]
    names = [f", {x}" for x in "est" if re.search(rf"\b{x} =", body)]
    return ACTIVATION_TEMPLATE.substitute(phi=phi, names="".join(names), body=body)


def indent_statements(statements: list[str], indent: int) -> str:
    return "".join(" " * indent + text + "\n" for text in statements)
