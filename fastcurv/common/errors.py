"""Error messages that suggest the right name if another library's name was used, and the table of
those names.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partialmethod, wraps
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, get_args

from .protocols import NAMES_HIDDEN_FROM_DIR, Certificate
from .runtime import Given, Result

# --------------------------------------------------------------------------------------------------
# Names in other libraries and their counterparts here: tables from unknown names to suggestions,
# for names of arguments (`ARGUMENT_HINTS`), of methods, losses, activations and initialisations
# (`CHOICE_ALIASES`, in any spelling), of attributes (`ATTRIBUTE_HINTS`, `FUNCTION_HINTS`), and of
# libraries whose networks can be converted (`CONVERTERS`).

STEP_ALIASES = dict.fromkeys(
    ("maxiter", "n_iter", "epochs", "n_epochs", "num_steps", "n_steps", "steps", "iterations"),
    "max_iter",
)
SEED_ALIASES = {"random_state": "seed", "key": "seed", "generator": "seed"}
PROBE_ALIASES = dict.fromkeys(
    (
        *("num_samples", "n_samples", "num_matvecs", "n_vectors", "n_v", "n_vec", "num_probes"),
        *("m", "maxIter"),
    ),
    "n_probes",
)
TOLERANCE_ALIASES = dict.fromkeys(("tol", "gtol", "eps", "atol", "grad_tol"), "gradient_tol")

_CPU_ONLY_CLAUSE = ": fastcurv runs on the CPU only"
PROGRESS_ALIASES = dict.fromkeys(("verbose", "disp", "iprint"), "progress")
ARGUMENT_HINTS: dict[str, dict[str, str]] = {
    "minimize": {
        **STEP_ALIASES,
        **dict.fromkeys(("tol", "gtol", "xtol", "ftol"), "gradient_tol"),
        **dict.fromkeys(("lr", "learning_rate_init", "eta", "step_size"), "learning_rate"),
        **SEED_ALIASES,
        "rng": "seed",
        **dict.fromkeys(("weight_decay", "l2", "alpha"), "l2 of the objective"),
        **dict.fromkeys(("x0", "params"), "theta0"),
        **PROGRESS_ALIASES,
        "maxcor": "memory of method='l-bfgs'",
        "history_size": "memory of method='l-bfgs'",
        "options": "its entries as arguments of minimize",
        "betas": "beta1 and beta2 of method='adam'",
        "jac": "an objective, which has its own gradient",
        "hess": "an objective, which has its own hessian",
        "hessp": "an objective, which has its own hessian",
        "fun": "ob",
        "args": "an objective, which holds its data",
        "bounds": ": parameters are unconstrained. For bounds use scipy.optimize.minimize("
        "ob.value, theta0, jac=ob.gradient, method='L-BFGS-B', bounds=...)",
        "constraints": ": parameters are unconstrained. For constraints use "
        "scipy.optimize.minimize(ob.value, theta0, jac=ob.gradient, constraints=...)",
        "optimizer": "method",
        "solver": "method",
        "initial_trust_radius": "radius",
        "max_trust_radius": "radius",
        "batch": "batch_size, with method='adam' or another first-order method",
        "momentum": "method='momentum'",
        "nesterov": "method='nesterov'",
        "shuffle": "seed: every epoch is shuffled",
        "early_stopping": "validation and patience",
        "n_iter_no_change": "patience",
        "validation_data": "validation",
        **dict.fromkeys(("goal", "abstol"), "fun_target"),  # names used in MATLAB and R
        **dict.fromkeys(("min_grad", "reltol", "threshold"), "gradient_tol"),
        "max_fail": "patience",
        **dict.fromkeys(("show", "showWindow", "showCommandLine", "trace"), "progress"),
        **dict.fromkeys(("maxit", "stepmax"), "max_iter"),
        "rep": "n_init",
        "startweights": "theta0",
        "decay": "l2 of the objective",
    },
    "Objective": {
        **dict.fromkeys(("weight_decay", "alpha", "decay"), "l2"),
        "criterion": "loss",
        "loss_fn": "loss",
        "weights": "sample_weight",
        "sample_weights": "sample_weight",
        "n_jobs": "n_threads",
        "num_threads": "n_threads",
        "reduction": "sample_weight: losses are means, as torch's by default",
        **dict.fromkeys(("class_weight", "pos_weight"), "sample_weight: weights[y]"),
        "weight": "sample_weight: weights[y] * N / weights[y].sum(), as torch's mean is",
        "label_smoothing": "soft targets as y, (N, classes)",
        "ignore_index": "rows of X and y without the ignored class",
        "batch_size": "memory, or ob.batch(rows)",
    },
    "MLP": {
        "hidden_layer_sizes": "sizes, the widths of input, hidden layers and output",
        "layers": "sizes",
        **dict.fromkeys(("hidden", "size"), "sizes, the widths of input, hidden layers and output"),
        "activations": "activation",
        "nonlinearity": "activation",
        "batchnorm": "batch_norm",
        "use_bias": "bias",
        "dropout": "l2 of the objective: dropout has no exact Hessian",
        **dict.fromkeys(SEED_ALIASES, "seed of model.init"),
        "seed": "seed of model.init",
    },
    "init": {
        **SEED_ALIASES,
        "rng": "seed",
        "method": "scheme",
        "gain": "a multiple of the theta returned",
    },
    "eigsh": {
        **PROGRESS_ALIASES,
        "maxiter": "max_products",
        "max_iter": "max_products",
        "ncv": "max_basis",
        "M": "a standard eigenproblem",
        "sigma": "which='SA' or 'LA': the ends of the spectrum, since products alone give no "
        "eigenvalues near a number; eigvalsh gives all where n is small",
        "return_eigenvectors": "the values of the result",
        **dict.fromkeys(("n_components", "num", "num_eigenthings", "n_eigs", "top_n", "n"), "k"),
        "num_eigenvalues": "k",
        **SEED_ALIASES,
        "mode": "which",
        "largest": "which='LA'",
    },
    "spectral_density": {
        **PROGRESS_ALIASES,
        **PROBE_ALIASES,
        **dict.fromkeys(("maxiter", "iter", "max_iter", "k", "degree", "order", "ncv"), "n_steps"),
        **SEED_ALIASES,
        "sigma": "width",
        "sigma_squared": "width",
        "bins": "n_grid",
        "num_bins": "n_grid",
    },
    "estimate": {
        **PROGRESS_ALIASES,
        **PROBE_ALIASES,
        "maxiter": "n_probes",
        "tol": "n_probes",
        "k": "n_probes",
        **SEED_ALIASES,
    },
    "regularization_path": {"alphas": "l2s", "theta": "theta0", "x0": "theta0"},
    "laplace": {"backend": "curvature", "sigma_noise": "noise_std", "prior_precision": "ob.l2"},
    "classify": {
        **PROGRESS_ALIASES,
        "timeout": "max_time",
        **TOLERANCE_ALIASES,
        "eig_tol": "curvature_tol",
        "maxiter": "max_products",
        "max_iter": "max_products",
        **SEED_ALIASES,
        "rng": "seed",
        "k": "krylov, a run with any number of steps",
        "alpha": "failure_probability",
    },
    "find_critical_point": {
        **TOLERANCE_ALIASES,
        **STEP_ALIASES,
        **PROGRESS_ALIASES,
        "timeout": "max_time",
    },
    "diagnose": {
        **dict.fromkeys(("losses", "result", "run", "log"), "history"),
        **dict.fromkeys(("lr", "learning_rate", "method"), "history, a mapping that names it"),
        "timeout": "max_time",
    },
    "check_gradient": {
        **dict.fromkeys(("eps", "h", "epsilon", "step"), ": steps of many lengths are tried"),
        **dict.fromkeys(("n", "n_probes"), "n_directions"),
        **SEED_ALIASES,
    },
    "escape": {
        "lr": ": a line search finds the step",
        "learning_rate": ": a line search finds the step",
        "step": ": a line search finds the step",
        "v": "direction",
        "d": "direction",
        **SEED_ALIASES,
    },
    "newton_step": dict.fromkeys(("l2", "lam", "alpha", "shift", "mu", "eps"), "damping")
    | {"lr": "a multiple of the step returned", "learning_rate": "a multiple of the step returned"},
    "picture": {
        **dict.fromkeys(("figsize", "fig", "figure"), "ax, the axes of your own figure"),
        **dict.fromkeys(("title", "xlabel", "ylabel"), "display.ax_.set(...), after it is drawn"),
        **dict.fromkeys(("dpi", "path", "filename"), "display.figure_.savefig(path)"),
        **dict.fromkeys(("kind", "direction"), "directions of the landscape"),
        **dict.fromkeys(("n_points", "num", "resolution"), "n_grid of the landscape"),
        **dict.fromkeys(("distance", "span"), "radius of the landscape"),
    },
    "restrict": {"layer": "layers=[...]", "rows": "indices", "params": "indices", "idx": "indices"},
    "estimator": {
        **dict.fromkeys(("hidden", "hidden_layers", "layers", "sizes"), "hidden_layer_sizes"),
        **dict.fromkeys(("lr", "eta", "step_size"), "learning_rate_init"),
        **dict.fromkeys(("learning_rate", "power_t"), "learning_rate_init: rates are constant"),
        **dict.fromkeys(("beta_1", "beta_2", "epsilon"), "fastcurv.minimize(ob, theta, 'adam')"),
        **dict.fromkeys(("l2", "weight_decay", "decay"), "alpha"),
        **dict.fromkeys(("epochs", "n_epochs", "maxiter", "max_fun"), "max_iter"),
        "class_weight": "sample_weight of fit",
        **dict.fromkeys(("seed", "rng"), "random_state"),
        "n_jobs": "n_threads",
        "momentum": "solver='momentum'",
        "nesterovs_momentum": "solver='nesterov'",
        "method": "solver",
        "optimizer": "solver",
        "shuffle": "random_state: every epoch is shuffled",
        "progress": "verbose",
        "loss": "MLPClassifier or MLPRegressor: each has its loss",
    },
}
for _names in ARGUMENT_HINTS.values():
    _names["device"] = _CPU_ONLY_CLAUSE
ARGUMENT_HINTS["saddle_free_newton_step"] = ARGUMENT_HINTS["newton_step"] | {"n_components": "k"}

# Keys have no capitals, hyphens, underscores or blanks. Quoted values are names in this library.
_METHOD_ALIASES = {
    **dict.fromkeys(("lbfgsb", "lbfgs", "bfgs"), "'l-bfgs'"),
    **dict.fromkeys(("trustncg", "trustkrylov", "trustexact", "trustconstr"), "'trust-region'"),
    **dict.fromkeys(("tr", "dogleg", "steihaug"), "'trust-region'"),
    **dict.fromkeys(("cg", "tnc", "truncatednewton", "hessianfree", "hf"), "'newton-cg'"),
    **dict.fromkeys(("naturalgradient", "kfac"), "'gauss-newton'"),
    **dict.fromkeys(("levenberg", "marquardt", "leastsq"), "'levenberg-marquardt'"),
    **dict.fromkeys(("sfn", "saddlefree"), "'saddle-free-newton'"),
    **dict.fromkeys(("arc", "cubicregularization", "cubicnewton"), "'cubic'"),
    **dict.fromkeys(("adamw", "nadam", "amsgrad", "adamax"), "'adam', with l2 in the objective"),
    **dict.fromkeys(("gd", "gradientdescent"), "'sgd' without batch_size"),
    **dict.fromkeys(("neldermead", "powell", "cobyla"), "'trust-region': gradients are exact here"),
    # The following names are used in MATLAB and R.
    "trainlm": "'levenberg-marquardt'",
    "trainbr": "'levenberg-marquardt', with l2 in the objective",
    **dict.fromkeys(("trainscg", "traincgf", "traincgb", "traincgp"), "'newton-cg'"),
    **dict.fromkeys(("trainbfg", "trainoss"), "'l-bfgs'"),
    "traingd": "'sgd' without batch_size",
    "traingdm": "'momentum'",
    **dict.fromkeys(("traingda", "traingdx"), "'adam'"),
    **dict.fromkeys(("trainrp", "rprop", "rprop+"), "'rmsprop'"),
}
CHOICE_ALIASES: dict[str, dict[str, str]] = {
    "method": _METHOD_ALIASES,
    "solver": _METHOD_ALIASES,
    # `fastcurv.structure.tables` adds names to this table and fills the table for "loss".
    "activation": {
        "softmax": "none on the last layer: outputs are logits",
        "hardtanh": "'tanh': a bounded one",
        "tansig": "'tanh'",
        "logsig": "'sigmoid'",
        "purelin": "'identity'",
        "poslin": "'relu'",
    },
    "scheme": {
        **dict.fromkeys(("glorot", "glorotuniform", "glorotnormal", "xavieruniform"), "'xavier'"),
        "xaviernormal": "'xavier'",
        **dict.fromkeys(("kaiming", "henormal", "heuniform", "kaiminguniform"), "'he'"),
        "kaimingnormal": "'he'",
    },
    "which": {
        **dict.fromkeys(("largest", "lr", "la", "top", "max"), "'LA'"),
        **dict.fromkeys(("smallest", "sr", "lowest", "min"), "'SA'"),
        "sm": "'SA', or fc.eigvalsh(H): what is near 0 lies inside the spectrum",
        "magnitude": "'LM'",
        "both": "'BE'",
    },
}

_HESSIAN_HINTS = (
    "eigsh",
    "eigvalsh",
    "trace",
    "diagonal",
    "inertia",
    "frobenius_norm",
    "spectral_density",
)
_DEVICE_HINTS = dict.fromkeys(("cuda", "cpu", "gpu", "device"), _CPU_ONLY_CLAUSE)
_RESULT_HINTS = {
    **dict.fromkeys(
        ("theta", "params", "parameters", "weights", "best_x", "best_params", "solution"), "run.x"
    ),
    **dict.fromkeys(
        ("loss", "value", "f", "fval", "cost", "best_loss", "minimum", "objective"), "run.fun"
    ),
    **dict.fromkeys(("grad", "gradient", "g"), "ob.gradient(run.x), which is run.jac of minimize"),
    **dict.fromkeys(("hess", "hessian", "hess_inv"), "ob.hessian(run.x)"),
    **dict.fromkeys(("converged", "ok", "successful"), "run.success"),
    **dict.fromkeys(("reason", "msg", "sentence"), "run.message"),
    "predict": "ob.model.predict(run.x, X)",
    "model": "ob.model, with run.x as its theta",
    "summary": "print(run)",
    "save": "fc.save(path, ob.model, run.x)",
}
ATTRIBUTE_HINTS: dict[str, dict[str, str]] = {
    "operator": {
        **_DEVICE_HINTS,
        "to": f"{_CPU_ONLY_CLAUSE}. H.astype('float32') changes the dtype",
        **dict.fromkeys(("toarray", "todense", "numpy", "to_numpy", "dense", "A"), "H.to_dense()"),
        **dict.fromkeys(("eigenvalues", "eigvals"), "fc.eigvalsh(H), or fc.eigsh(H, k)"),
        "eigvalsh": "fc.eigvalsh(H), or fc.eigsh(H, k)",
        **dict.fromkeys(("eigsh", "top_eigenvalues", "eigs", "eig"), "fc.eigsh(H, k)"),
        "trace": "fc.trace(H)",
        **dict.fromkeys(("diagonal", "diag"), "fc.diagonal(H)"),
        **dict.fromkeys(("density", "spectrum"), "fc.spectral_density(H)"),
        **dict.fromkeys(("hvp", "mv", "matvec_"), "H @ v"),
        "inertia": "fc.inertia(H)",
        **dict.fromkeys(("layer", "block"), "H.restrict(layers=[...])"),
        "flags": "a dense matrix: hess=lambda t: ob.hessian(t).to_dense() for SciPy's trust-exact",
        "n_params": "the objective itself, which can be evaluated at any theta",
        "__getitem__": "H @ e of a unit vector e, a column, or H.to_dense(), the matrix",
    },
    "objective": {
        **_DEVICE_HINTS,
        "to": f"{_CPU_ONLY_CLAUSE}. The dtype is that of its model",
        "hvp": "ob.hessp(theta, v)",
        **dict.fromkeys(("grad", "jac", "backward"), "ob.gradient(theta)"),
        **dict.fromkeys(("hess", "H"), "ob.hessian(theta)"),
        **dict.fromkeys(("loss_fn", "fun", "forward", "evaluate", "criterion"), "ob.value(theta)"),
        **dict.fromkeys(("fit", "train", "minimize", "optimize"), "fc.minimize(ob, theta)"),
        "classify": "fc.classify(ob, theta)",
        "gnvp": "ob.ggn(theta) @ v",
        "fisher": "ob.empirical_fisher(theta)",
        "predict": "ob.model.predict(theta, X)",
        **dict.fromkeys(("theta", "params", "parameters"), "a theta of your own: ob.model.init()"),
        **{name: f"fc.{name}(ob.hessian(theta))" for name in _HESSIAN_HINTS},
        "__call__": "ob.value(theta)",
        "__getitem__": "ob.batch(rows)",
        "restrict": "ob.hessian(theta).restrict(layers=[...])",
        **{name: f"ob.certificates.{name}" for name in get_args(Certificate)},
    },
    "pairs": {
        **dict.fromkeys(("eigenvalues", "w", "lambdas"), "pairs.values"),
        **dict.fromkeys(("eigenvectors", "v", "V"), "pairs.vectors"),
        "errors": "pairs.residuals",
    },
    "estimate": {
        **dict.fromkeys(("mean", "result", "trace", "norm", "diagonal"), "t.estimate"),
        **dict.fromkeys(("std", "std_error", "error", "uncertainty"), "t.stderr"),
        "__getitem__": "t.estimate and t.stderr",
    },
    "density": {
        **dict.fromkeys(("x", "grids", "eigenvalues", "lambdas"), "density.grid"),
        **dict.fromkeys(("y", "values", "densities"), "density.density"),
        "__getitem__": "density.grid and density.density",
    },
    "left_out": {
        "leverage": "out.hat_matrix_diag",
        "influence": "out.output_changes(X_new), or fc.influence(ob, theta, X_new)",
        "predict_interval": "out.interval(X_new)",
        "resid_press": "ob.y - out.predictions",
    },
    "path": {"coefs": "path.thetas", "alphas": "path.l2s"},
    "posterior": {"log_marginal_likelihood": "post.log_evidence", "sigma_noise": "post.noise_std"},
    "verdict": {
        "__getitem__": "point.kind and others by name, or point.to_dict()",
        **dict.fromkeys(
            ("is_minimum", "is_saddle", "is_maximum", "verdict", "type"),
            "point.kind: 'minimum', 'saddle' and others",
        ),
        **dict.fromkeys(
            ("eigenvalues", "values", "spectrum"), "fc.eigsh(ob.hessian(theta), which='BE')"
        ),
        **dict.fromkeys(("inertia", "signature"), "point.n_negative, n_zero and n_positive"),
        **dict.fromkeys(
            ("x", "theta"), "point.nearest_point, or the theta that was passed to classify"
        ),
    },
    "result": _RESULT_HINTS,
    "run": {
        **_RESULT_HINTS,
        **dict.fromkeys(("n_iter", "n_iter_", "niter", "iterations", "iteration"), "run.nit"),
        **dict.fromkeys(("n_steps", "steps", "epochs"), "run.nit"),
        **dict.fromkeys(("n_products", "nhess", "n_matvecs"), "run.nhev, the Hessian products"),
        "gradient_norm": "run.history['gradient_norm'][-1], or the norm of run.jac",
        **dict.fromkeys(
            ("verdict", "point", "critical_point", "classification", "certified", "n_negative"),
            "run.report, the verdict of classify or None",
        ),
        **dict.fromkeys(
            ("losses", "loss_curve", "loss_curve_", "trajectory", "log", "best_perf", "perf"),
            "run.history['loss']",
        ),
        **dict.fromkeys(("time", "duration", "elapsed", "seconds"), "run.wall_time"),
        **dict.fromkeys(("plot", "show"), "fc.ConvergenceDisplay.from_results(run)"),
    },
    "estimator": {
        "partial_fit": "a mini-batch solver: solver='sgd', 'momentum', 'nesterov', 'rmsprop' "
        "or 'adam'",
        **dict.fromkeys(
            ("theta_", "model_", "coefs_", "intercepts_", "loss_", "n_iter_", "curvature_"),
            "fit(X, y) first, which sets this attribute",
        ),
        **dict.fromkeys(("theta", "params", "parameters"), "theta_"),
        **dict.fromkeys(("model", "module", "network"), "model_"),
        **dict.fromkeys(("hessian", "hvp"), "objective(X, y).hessian(theta_) of a fitted one"),
        **dict.fromkeys(("report", "verdict_", "curvature", "kind"), "curvature_, after fit"),
        "predict_interval": "fc.leave_one_out(est.objective(X, y), est.theta_) for classes",
        "validation_scores_": "validation_loss_curve_, with early_stopping=True",
    },
    "look": {
        "sentence": "look.reason, or the whole verdict of MLPClassifier(verdict=True)",
        "certified": "the whole verdict, of MLPClassifier(verdict=True)",
    },
    "model": {
        **_DEVICE_HINTS,
        "to": f"{_CPU_ONLY_CLAUSE}. model.astype('float64') changes the dtype",
        **dict.fromkeys(("forward", "__call__", "apply", "transform"), "model.predict(theta, X)"),
        **dict.fromkeys(
            ("parameters", "params", "weights", "get_weights", "coefs_"),
            "model.unflatten(theta): parameters are a vector apart from the model",
        ),
        "state_dict": "fc.to_torch(model, theta).state_dict()",
        **dict.fromkeys(("fit", "train", "compile"), "fc.Objective(model, X, y, loss=...)"),
        **dict.fromkeys(("n_parameters", "num_params", "count_params", "size"), "model.n_params"),
        "summary": "print(model)",
        **dict.fromkeys(("initialize", "reset_parameters"), "model.init(seed=0)"),
        **dict.fromkeys(("double", "float", "half"), "model.astype('float64')"),
        "load_state_dict": "fc.from_torch(state_dict, activation=...)",
        "save": "fc.save(path, model, theta)",
    },
}
SCHEDULE_NAMES = ("constant", "constant_then_decay", "inverse_time", "power", "robbins_monro")
FUNCTION_HINTS = {
    **dict.fromkeys(("hessian", "Hessian"), "ob.hessian(theta) of ob = fc.Objective(...)"),
    "hvp": "ob.hessian(theta) @ v of ob = fc.Objective(...)",
    # the class of curvlinops
    "HessianLinearOperator": "ob.hessian(theta) of ob = fc.Objective(...)",
    **dict.fromkeys(
        ("GGNLinearOperator", "FisherMCLinearOperator"), "ob.ggn(theta) of ob = fc.Objective(...)"
    ),
    **dict.fromkeys(
        ("KFACLinearOperator", "EKFACLinearOperator"),
        "ob.ggn(theta) of ob = fc.Objective(...), which is exact, without Kronecker factors",
    ),
    "EFLinearOperator": "ob.empirical_fisher(theta) of ob = fc.Objective(...)",
    "JacobianLinearOperator": "ob.jacobian(theta) of ob = fc.Objective(...)",
    **dict.fromkeys(
        ("CGInverseLinearOperator", "LSMRInverseLinearOperator", "NeumannInverseLinearOperator"),
        "fc.newton_step(H, g, damping=...)",
    ),
    **dict.fromkeys(("hutchinson_trace", "hutchpp_trace", "xtrace"), "fc.trace(H)"),
    **dict.fromkeys(("hutchinson_diag", "xdiag"), "fc.diagonal(H)"),
    "lanczos_approximate_spectrum": "fc.spectral_density(H)",
    **dict.fromkeys(
        ("fitnet", "feedforwardnet", "newff"),  # functions of MATLAB
        "fc.MLPRegressor((10,)), or fc.MLP([in, 10, out]) and fc.minimize",
    ),
    "patternnet": "fc.MLPClassifier((10,)), or fc.MLP([in, 10, out]) and fc.minimize",
    **dict.fromkeys(
        ("nnet", "neuralnet"),  # functions of R
        "fc.MLPClassifier or fc.MLPRegressor, or fc.MLP([in, size, out]) and fc.minimize",
    ),
    **dict.fromkeys(("grad", "gradient", "jacobian", "ggn"), "a method of fc.Objective(...)"),
    **dict.fromkeys(("eigh", "eig", "eigs", "eigvals"), "fc.eigsh or fc.eigvalsh"),
    **dict.fromkeys(("Linear", "Sequential", "NeuralNetwork", "Net"), "fc.MLP([in, ..., out])"),
    **dict.fromkeys(("train", "fit", "minimise"), "fc.minimize(ob, theta)"),
    **dict.fromkeys(("plot", "plot_spectrum"), "fc.SpectrumDisplay.from_operator(H)"),
    **{name: f"fc.schedules.{name}" for name in SCHEDULE_NAMES},
    **{name: f"fc.scipy.{name}" for name in ("newton_cg", "saddle_free_newton", "trust_region")},
    **{name: f"fc.structure.{name}" for name in ("flip_tanh", "permute_hidden", "rescale_relu")},
    "Krylov": "fc.spectrum.Krylov",
    "show_config": "fc.show_versions",
    "plot_landscape": "fc.LandscapeDisplay.from_objective(ob, theta)",
    **dict.fromkeys(("lanczos", "Lanczos"), "fc.spectrum.Krylov(H) or fc.eigsh(H)"),
    "density": "fc.spectral_density(H)",
    **dict.fromkeys(("to_onnx", "export"), "torch.onnx.export of fc.to_torch(model, theta)"),
    **dict.fromkeys(("to_keras", "to_jax"), "model.unflatten(theta): (W, b) by layer, W (out, in)"),
    **dict.fromkeys(("from_pytorch", "from_module", "from_state_dict"), "fc.from_torch"),
    **dict.fromkeys(("from_tensorflow", "from_tf"), "fc.from_keras(network.get_weights(), ...)"),
    **dict.fromkeys(("from_flax", "from_haiku", "from_pytree"), "fc.from_jax"),
    **dict.fromkeys(("from_pipeline", "from_scikit_learn"), "fc.from_sklearn"),
    **dict.fromkeys(("from_safetensors", "load_model"), "fc.load(path)"),
}
# Key: a top-level module of another library, or a class of this library. Value: how to convert or
# use the objects.
CONVERTERS = {
    "torch": "fc.from_torch(module) gives model and theta",
    "keras": "fc.from_keras(network.get_weights(), activation=...) gives model and theta",
    "tensorflow": "fc.from_keras(network.get_weights(), activation=...) gives model and theta",
    "sklearn": "fc.from_sklearn(estimator) gives model and theta",
    "onnx": "fc.from_onnx(network) gives model and theta",
    "flax": "fc.from_jax(parameters, activation=...) gives model and theta",
    "fastcurv.MLP": "Make ob = fc.Objective(model, X, y), theta = model.init() and H = "
    "ob.hessian(theta)",
    "fastcurv.Objective": "ob.model is its network, and ob.hessian(theta) its operator at theta",
    **dict.fromkeys(
        ("fastcurv.MLPClassifier", "fastcurv.MLPRegressor"),
        "A fitted estimator has model_, theta_ and objective(X, y)",
    ),
}
# Key: the name of a class that holds rows or vectors. Value: how to get arrays from it.
CONTAINER_HINTS = {
    "DataLoader": "arrays of all rows: X, y = loader.dataset.tensors of a TensorDataset",
    "TensorDataset": "arrays: X, y = dataset.tensors",
    "Eigenpairs": "one of its vectors: pairs.vectors[:, i]",
    "Subset": "arrays of all rows: X, y = dataset[:] of a subset of a TensorDataset",
}


def normalise_name(name: str) -> str:
    """Normalise a name: convert it to lower case, and remove hyphens, underscores and blanks.

    Examples
    --------
    >>> normalise_name("L-BFGS-B")
    'lbfgsb'
    """
    return name.lower().translate({ord(sign): None for sign in "-_ "})


def suggested_choice(x: Any, choices: Iterable[str], name: str) -> str | None:
    """Return the quoted name of fastcurv for the choice `x`, or advice, if `x` is another spelling
    of one of `choices` or another library's name for one. Otherwise return None. `name` is the
    argument, a key of `CHOICE_ALIASES`.

    Examples
    --------
    >>> suggested_choice("Newton-CG", ["newton-cg"], "method")
    "'newton-cg'"
    >>> suggested_choice("L-BFGS-B", ["l-bfgs"], "method")
    "'l-bfgs'"
    """
    named = x if isinstance(x, str) else getattr(x, "__name__", type(x).__name__)
    spelled = {normalise_name(choice): repr(choice) for choice in choices}
    return spelled.get(normalise_name(named)) or CHOICE_ALIASES.get(name, {}).get(
        normalise_name(named)
    )


def advice_clause(words: str | None) -> str:
    """Return the end of a message that suggests `words` in place of another library's name, or "."
    for None. A bare name is quoted, and words that begin with a colon are a reason.

    Examples
    --------
    >>> advice_clause("l2"), advice_clause("fc.trace(H)"), advice_clause(": it runs on the CPU")
    (". Use 'l2'.", '. Use fc.trace(H).', ': it runs on the CPU.')
    """
    if not words or words.startswith(":"):
        return f"{words or ''}."
    return f". Use {words!r}." if words.isidentifier() else f". Use {words}."


def raise_if_foreign_argument(where: str, given: Iterable[str], called: str | None = None) -> None:
    """Raise a TypeError that suggests the right argument if one of the names `given` belongs to
    another library.

    Parameters
    ----------
    where : str
        Key of `ARGUMENT_HINTS`, mostly the function's name.
    given : iterable of str
        Unknown names that the function was given.
    called : str, optional
        Name of the function for the message, if not `where`.
    """
    names = ARGUMENT_HINTS.get(where, {})
    for name in given:
        if name in names:
            raise TypeError(
                f"{called or where} has no argument {name!r}{advice_clause(names[name])}"
            ) from None


def raise_if_unknown_argument(
    where: str, given: Iterable[str], called: str | None = None, known: Iterable[str] = ()
) -> None:
    """Raise a TypeError for the unknown arguments `given`, if there are any. The message has the
    suggestion of `raise_if_foreign_argument` or, if there is none, the closest of the names in
    `known`. The first three arguments are those of `raise_if_foreign_argument`.
    """
    given, called, known = list(given), called or where, [name for name in known if name != "self"]
    raise_if_foreign_argument(where, given, called)
    for name in given:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Its arguments are {', '.join(known)}."
        raise TypeError(f"{called} has no argument {name!r}. {hint}") from None


def keyword_names(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that can be passed to a function by keyword.

    Examples
    --------
    >>> keyword_names(lambda a, *, b=1, **more: None)
    ['a', 'b']
    """
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def suggest_names(where: str) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Decorate a function to raise helpful errors for wrong arguments. For an unknown name the
    message has the right name, from ``ARGUMENT_HINTS[where]``. For a wrong number of arguments the
    message has the signature.

    Examples
    --------
    >>> @suggest_names("eigsh")
    ... def eigsh(op, k=6): ...
    >>> eigsh(None, n_components=3)
    Traceback (most recent call last):
    TypeError: eigsh has no argument 'n_components'. Use 'k'.
    """

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        @wraps(function)
        def checked(*args: Given.args, **options: Given.kwargs) -> Result:
            try:
                return function(*args, **options)
            except TypeError as error:
                try:
                    inspect.signature(function).bind(*args, **options)
                except TypeError:
                    raise_call_error(where, function, args, options, str(error))
                raise

        return checked

    return decorate


def raise_call_error(
    where: str, function: Callable[..., Any], args: Sequence[Any], options: Iterable[str], said: str
) -> NoReturn:
    """Raise the TypeError for arguments that do not fit a function's signature, where `said` is
    Python's own message.

    The message has the right name of an unknown argument or, if no name is unknown, the positional
    arguments of the function, with dots for keyword-only ones. If the first argument is not of the
    expected class, the message states how to get the right object. `where` is a key of
    `ARGUMENT_HINTS`, `args` are the positional arguments and `options` the names of the others.
    """
    parameters, name = list(inspect.signature(function).parameters.values()), function.__name__
    method = "." in function.__qualname__ and parameters[0].name == "self"
    owner = type(args[0]).__name__ if method else ""
    called = owner if name == "__init__" else f"{owner}.{name}".lstrip(".")
    if all(p.kind != p.VAR_KEYWORD for p in parameters):
        known = keyword_names(function)
        raise_if_unknown_argument(
            where, [name for name in options if name not in known], called, known
        )
    placed = [p.name for p in parameters[method:] if p.kind == p.POSITIONAL_OR_KEYWORD]
    dots = ["..."] * (method + len(placed) < len(parameters))
    cure = f" Use {called}({', '.join(placed + dots)})"
    if method and hasattr(args[0], "from_objective"):
        cure += f", or {owner}.from_objective(ob, theta)."
    elif len(args) > method and converter_key(args[method]) != EXPECTED_CLASSES.get(placed[0]):
        cure += f".{conversion_hint(args[method])}"
    else:
        cure += "."
    raise TypeError(f"{said.replace(function.__qualname__, called)}.{cure}") from None


def raise_attribute_error(subject: str, kind: str, name: str, owner: Any) -> NoReturn:
    """Raise an AttributeError that suggests the counterpart of another library's name or, if there
    is none, the closest attribute of `owner`.

    `subject` is a key of `ATTRIBUTE_HINTS`, or "fastcurv" for the module. `kind` describes the
    object in the message, and `name` is the missing attribute.
    """
    known = FUNCTION_HINTS if subject == "fastcurv" else ATTRIBUTE_HINTS[subject]
    hint = "."
    if name in known:
        hint = advice_clause(known[name])
    elif not (
        subject in SUBJECTS_WITHOUT_SUGGESTION
        or name in NAMES_WITHOUT_SUGGESTION
        or name.startswith("_")
    ):
        public = [x for x in dir(owner) if not x.startswith("_")]
        near = difflib.get_close_matches(name, public, 1)
        hint = f". Did you mean {near[0]!r}?" if near else "."
    raise AttributeError(f"{kind} has no attribute {name!r}{hint}")


# subjects that are often checked for optional attributes, for which no similar name is searched
SUBJECTS_WITHOUT_SUGGESTION = ("objective", "operator")
NAMES_WITHOUT_SUGGESTION = (
    "n_threads",
)  # attributes that are looked up in the first argument of every proof
SPECIAL_METHODS = {"__call__": "callable", "__getitem__": "subscriptable"}


def _raise_special_method_error(self: Any, name: str, *args: Any, **options: Any) -> NoReturn:
    """Raise the TypeError of a special method that the class lacks, with a suggestion."""
    said = f"{type(self).__name__!r} object is not {SPECIAL_METHODS[name]}"
    raise TypeError(f"{said}{advice_clause(ATTRIBUTE_HINTS[self._subject][name])}")


class AttributeHints:
    """Mixin that suggests the right name for missing attributes. The class argument ``subject`` is
    a key of `ATTRIBUTE_HINTS`.

    Calls and indexing, for which Python looks up a method in the class, raise a TypeError with a
    suggestion. `dir` omits the names that only other subpackages use (`NAMES_HIDDEN_FROM_DIR`).
    """

    _subject: ClassVar[str]

    def __init_subclass__(cls, subject: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if subject is not None:
            cls._subject = subject
            for name in SPECIAL_METHODS.keys() & ATTRIBUTE_HINTS[subject].keys():
                setattr(cls, name, partialmethod(_raise_special_method_error, name))

    if not TYPE_CHECKING:  # the method is hidden from type checkers, which know the real attributes

        def __getattr__(self, name: str) -> NoReturn:
            raise_attribute_error(
                type(self)._subject, f"{type(self).__name__!r} object", name, self
            )

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in NAMES_HIDDEN_FROM_DIR]


def type_phrase(x: Any) -> str:
    """Return the name of the type of `x` with the article "a" or "an".

    Examples
    --------
    >>> type_phrase([]), type_phrase(1), type_phrase(type("MLP", (), {})())
    ('a list', 'an int', 'an MLP')
    """
    word = type(x).__name__
    spelled = word[:2].isupper() and word[0] in "FHLMNRSX" or word == "ndarray"
    return f"{'an' if spelled or word[0] in 'AEIOUaeiou' else 'a'} {word}"


def escape_unprintable(text: Any) -> str:
    r"""Escape unprintable characters as ``\x1b``: terminal control sequences, bidirectional marks,
    and surrogates from file names that are not UTF-8.

    Examples
    --------
    >>> print(escape_unprintable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def one_line(text: Any, most: int = 80) -> str:
    """Format text from a file for a message: on one line, printable, and truncated to `most`
    characters.
    """
    words = escape_unprintable(" ".join(str(text)[: 4 * most].split()))
    return words if len(words) <= most else f"{words[: most - 3]}..."


def conversion_hint(x: Any) -> str:
    """Return a sentence, after a blank, that states how to convert networks of the library of `x`,
    or "" if the library is unknown.
    """
    words = CONVERTERS.get(converter_key(x))
    return f" {words}." if words else ""


def converter_key(x: Any) -> str:
    """Return the key of `CONVERTERS` for the class or library of `x` or one of its base classes, or
    "".
    """
    roots = ((kind, kind.__module__.split(".")[0]) for kind in type(x).__mro__)
    homes = (home for kind, root in roots for home in (f"{root}.{kind.__name__}", root))
    return next((home for home in homes if home in CONVERTERS), "")


# expected class by name of the argument
EXPECTED_CLASSES = {"model": "fastcurv.MLP", "ob": "fastcurv.Objective"}
OBJECTIVE_HINT = "an objective such as fastcurv.Objective"


def require_attrs(x: Any, parts: Iterable[str], name: str, wanted: str, after: Any = None) -> None:
    """Raise a TypeError if `x` lacks one of the attributes `parts`. If `x` and the next argument
    were exchanged, the message says so.

    Parameters
    ----------
    x : object
        The value of an argument.
    parts : iterable of str
        Attributes that `x` must have.
    name, wanted : str
        Name of the argument, and what it should be, for the message.
    after : object
        The value of the next argument, theta.

    Examples
    --------
    >>> require_attrs([1.0], ["value"], "ob", OBJECTIVE_HINT)
    Traceback (most recent call last):
    TypeError: ob must be an objective such as fastcurv.Objective, got a list without value.
    """
    parts = list(parts)
    missing = [part for part in parts if not hasattr(x, part)]
    if not missing:
        return
    raise_if_arguments_swapped(x, parts, name, after)
    if wanted == OBJECTIVE_HINT and hasattr(x, "matvec"):
        wanted = "the objective itself, which can be evaluated at any theta"
    raise TypeError(
        f"{name} must be {wanted}, got {type_phrase(x)} without {', '.join(missing)}."
        f"{conversion_hint(x)}"
    )


def raise_if_arguments_swapped(x: Any, parts: Iterable[str], name: str, after: Any) -> None:
    """Raise a TypeError if the next argument, `after`, has all the attributes `parts` that `x`
    should have, as described in `require_attrs`.
    """
    if all(hasattr(after, part) for part in parts):
        raise TypeError(
            f"{name} and theta must be in this order, got {type_phrase(x)} and "
            f"{type_phrase(after)}. Exchange them."
        )


def container_error_message(x: Any, name: str) -> str | None:
    """Return the error message for a container in which another library keeps parameters or data.
    Return None if `x` is not such a container.

    Parameters
    ----------
    x : object
        The value of an argument that should be an array.
    name : str
        Name of the argument, for the message.
    """
    if type(x).__name__ in CONTAINER_HINTS:
        return f"{name} must be {CONTAINER_HINTS[type(x).__name__]}, got {type_phrase(x)}."
    parts = list(x.values()) if isinstance(x, dict) else x
    if inspect.isgenerator(x):
        what = "a generator"
        root = "torch"  # a generator is usually model.parameters()
    elif isinstance(parts, (list, tuple)) and parts:
        root = type(parts[0]).__module__.split(".")[0]
        what = f"{type_phrase(x)} of tensors"
    elif hasattr(x, "shape"):  # a single tensor gets another message
        return None
    else:
        root, what = converter_key(x), type_phrase(x)
    if root not in CONVERTERS:
        return None
    return f"{name} must be one flat vector, got {what}. {CONVERTERS[root]}."
