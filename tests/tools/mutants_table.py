"""The mutants: file, what stands there (once), what shall stand there instead."""

KERNELS = [
    # products
    (
        "gemm.inc",
        "return n / parts * i + (n % parts < i ? n % parts : i);",
        "return n / parts * i;",
    ),
    ("gemm.inc", "*done += k;", "*done += k + (k > 8);"),
    ("gemm.inc", "job->accumulate || round > 0", "job->accumulate"),
    ("gemm.inc", "s[q].b_vs = s[q].k * VL", "s[q].b_vs = VL"),
    ("gemm.inc", "if (job->exact && cols < nv * VL)", "if (0)"),
    (
        "gemm.inc",
        "if (step && (deep || q + 1 == tiles",
        "if (step && ((deep && q) || q + 1 == tiles",
    ),
    ("gemm.inc", "done = i + mr;", "done = i;"),
    ("gemm.inc", "const ptrdiff_t ldc = aside ? nv * VL", "const ptrdiff_t ldc = aside ? VL"),
    ("gemm.inc", "else s[q].b += j / VL * s[q].b_vs;", "else s[q].b += j / VL * VL;"),
    ("gemm.inc", "(const REAL *)t->a + *done * t->a_cs", "(const REAL *)t->a + *done * t->a_rs"),
    (
        "gemm.inc",
        "const ptrdiff_t i0 = row_item * job->row_block, j0 =",
        "const ptrdiff_t i0 = row_item * (job->row_block - 1), j0 =",
    ),
    # stacks
    ("stack.inc", "s[t].a += x * st->a[t];", "s[t].a += x * st->b[t];"),
    ("stack.inc", "s[t].b += x * st->b[t] + v * s[t].b_vs;", "s[t].b += x * st->b[t];"),
    ("stack.inc", "if (s->skip) s->skip = (const REAL *)s->skip + x * st->own;", ""),
    ("stack.inc", "if (s->sums) s->sums = (REAL *)s->sums + x * st->own;", ""),
    ("stack.inc", "of[q] = a + q * next_a;", "of[q] = a;"),
    ("stack.inc", "if (term < job->n_terms) return 0;", ""),
    # short and narrow ones
    (
        "inner.inc",
        "for (ptrdiff_t i = 0; i < n; i++) u.x[i] = x[i];",
        "for (ptrdiff_t i = 0; i < n - 1; i++) u.x[i] = x[i];",
    ),
    (
        "inner.inc",
        "if (add) v += *(NAME(four) *)(c + q);",
        "if (!add) v += *(NAME(four) *)(c + q);",
    ),
    (
        "inner.inc",
        "c[q] = add ? c[q] + sums[r * nr + q] : sums[r * nr + q];",
        "c[q] = sums[r * nr + q];",
    ),
    ("inner.inc", "VEC bl = load(b + q * ldb);", "VEC bl = load(b);"),
    (
        "inner.inc",
        "{FC_INNER_NAMES(1, 1), FC_INNER_NAMES(1, 2)}};",
        "{FC_INNER_NAMES(1, 1), FC_INNER_NAMES(1, 1)}};",
    ),
    # vectors as rows
    (
        "rows.inc",
        "rest += (double)q[i * ldq + y] * w[r * ldw + y];",
        "rest -= (double)q[i * ldq + y] * w[r * ldw + y];",
    ),
    (
        "rows.inc",
        "w[r * ldw + x] -= (REAL)c[r * ldc + i] * q[i * ldq + x];",
        "w[r * ldw + x] += (REAL)c[r * ldc + i] * q[i * ldq + x];",
    ),
    ("rows.inc", "if (squares && i + nq == m)", "if (squares && i == 0)"),
    ("rows.inc", "left >= 4 ? 4 :", "left >= 3 ? 4 :"),
    # copies and sums
    ("sweeps.inc", "y[j] = j < cols ? x[j] : (REAL)0;", "if (j < cols) y[j] = x[j];"),
    (
        "sweeps.inc",
        "out[i * o_rs + j] = j < cols ? in[i * rs + j * cs] : (REAL)0;",
        "if (j < cols) out[i * o_rs + j] = in[i * rs + j * cs];",
    ),
    (
        "transpose.inc",
        "if (i < rows) put(out + i * ldo, x[i], far);",
        "put(out + i * ldo, x[i], far);",
    ),
    ("sweeps.inc", "VEC sum = add ? load(y + i) : (VEC){0};", "VEC sum = (VEC){0};"),
    ("sweeps.inc", "REAL sum = add ? y[i] : 0;", "REAL sum = 0;"),
    ("sweeps.inc", "splat((REAL)alpha) * load(in + i)", "load(in + i)"),
    ("sweeps.inc", "to[i] = (REAL)alpha * in[i];", "to[i] = in[i];"),
    ("sweeps.inc", "out + j * rows, VL, far);", "out + j * (i1 - i0), VL, far);"),
    # activations
    ("activations.inc", "* w; *q = -2 * *a * *p;", "* w; *q = 2 * *a * *p;"),
    (
        "activations.inc",
        "*a = blend(z > 0, w, e * w); *p = (e * w) * w;",
        "*a = blend(z > 0, w, e * w); *p = e * w;",
    ),
    ("activations.inc", "*a = vmax(z, splat(0)) + vlog1p_unit(e);", "*a = vmax(z, splat(0)) + e;"),
    ("activations.inc", "*p = s + both * d;", "*p = s - both * d;"),
    ("activations.inc", "n; *q = n * (2 - both * both);", "n; *q = n * (1 - both * both);"),
    ("activations.inc", "& ~(z > 0));", "& ~(z >= 0));"),
    ("activations.inc", "*p = blend(z > 0, splat(1), *a);", "*p = blend(z >= 0, splat(1), *a);"),
    (
        "activations.inc",
        "blend(z <= 0, splat((REAL)FC_LEAK), z)",
        "blend(z < 0, splat((REAL)FC_LEAK), z)",
    ),
    # losses
    ("losses.inc", "if (!soft) delta[label] -= factor;", "if (!soft) delta[label] += factor;"),
    ("losses.inc", "if (soft || label == b->top[r]) delta[b->top[r]] = b->at_top[r];", ""),
    (
        "losses.inc",
        "blend(viota() < (REAL)left, v, splat(fill))",
        "blend(viota() <= (REAL)left, v, splat(fill))",
    ),
    (
        "losses.inc",
        "blend(above, rest - small, small - t)",
        "blend(above, rest + small, small - t)",
    ),
    ("losses.inc", "*h = splat(2);", "*h = splat(1);"),
    ("losses.inc", "((load(rz + j) - centre) - mean)", "(load(rz + j) - centre)"),
    ("losses.inc", "REAL along = (REAL)factor * hsum(g);", "REAL along = hsum(g);"),
    (
        "losses.inc",
        "g += keep(load(d + j) * load(x + j), cols - j, 0);",
        "g += load(d + j) * load(x + j);",
    ),
    # a layer of few units, samples across
    (
        "narrow.inc",
        "sum[t][x] = i ? load(out + t * ldout + x * VL) : (VEC){0};",
        "sum[t][x] = (VEC){0};",
    ),
    (
        "narrow.inc",
        "const VEC bias = u ? splat(u[i + r]) : (VEC){0};",
        "const VEC bias = u ? splat(u[r]) : (VEC){0};",
    ),
    ("narrow.inc", "store(c + x * VL, z);", ""),
    ("narrow.inc", "if (bent) e += wr[t] * d[t][x];", ""),
    ("narrow.inc", "along += along;", ""),
    ("narrow.inc", "if (kept) total[x] += load(q + x * VL) * z * z;", ""),
    ("narrow.inc", "total[x] = form && i ?", "total[x] = 0 ?"),
    ("narrow.inc", "sign ? slope : load(a + x * VL);", "sign ? ra : load(a + x * VL);"),
    ("narrow.inc", "splat(n->u && i + rows == n->units ?", "splat(n->u ?"),
    ("narrow.inc", ": cols > VL ? 2 : 1;", ": cols > 0 ? 2 : 1;"),
    ("narrow.inc", "nv = cols > 3 * VL &&", "nv = cols > 2 * VL &&"),
    ("narrow.inc", "const REAL flat = n->phi == FC_SIGMOID;", "const REAL flat = 0;"),
    ("narrow.inc", "e = t ? e + w[u][t] * from : w[u][t] * from;", "e = w[u][t] * from;"),
    ("narrow.inc", "load(q + at) * bend * rz", "load(q + at) * rz"),
    ("narrow.inc", "if (full) sum[u][t] += slope * along;", ""),
    ("narrow.inc", "const ptrdiff_t at = u * ld + j;", "const ptrdiff_t at = j;"),
    ("narrow.inc", "sums[u] = whole[u];", "sums[u] = (VEC){0};"),
    ("narrow.inc", "count - l > 1 && n->rank", "count - l > 0 && n->rank"),
    ("narrow.inc", "if (count == VL) {", "if (count > 0) {"),
    ("narrow.inc", "store(out, add ? load(out) + x : x);", "store(out, x);"),
    ("narrow.inc", "out[l] = add ? out[l] + u.x[l] : u.x[l];", "out[l] = u.x[l];"),
    # losses, samples across
    ("across.inc", "chain[j % VL] = j < VL ? x : chain[j % VL] + x;", "chain[j % VL] = x;"),
    ("across.inc", "x[(l < left ? l : left - 1) * step]", "x[l * step]"),
    ("across.inc", "if (j % VL == 0) NAME(transpose)", "if (j == 0) NAME(transpose)"),
    ("across.inc", "return load(square + j % VL * VL);", "return load(square);"),
    ("across.inc", "keep(p, left, 0)", "p"),
    ("across.inc", "factor * (rest - T * (S * share))", "factor * (rest - T * share)"),
    ("across.inc", "row = i + x < rows ? i + x : rows - 1", "row = i + x"),
    # few rows
    ("sweeps.inc", "acc[q] += v * (VEC){0};", "acc[q] = v * (VEC){0};"),
    (
        "sweeps.inc",
        "    for (; i < n; i++) sum += (to[i] = in[i]) * 0;",
        "    for (; i < n; i++) to[i] = in[i];",
    ),
    ("sweeps.inc", "FC_BYTES; i++) sum += (to[i] = in[i]) * 0;", "FC_BYTES; i++) to[i] = in[i];"),
    (
        "gemm.inc",
        "NAME(begin_step_of)(job, &step, row_item, col_item, j0, end - j0);",
        "NAME(begin_step_of)(job, &step, row_item, 0, j0, end - j0);",
    ),
]

PASSES = [
    (
        "fastcurv/_engine/passes.pyx",
        "put_skip(&job.step, below if y.skip and not y.asked else nothing())",
        "put_skip(&job.step, nothing())",
    ),
    (
        "fastcurv/_engine/passes.pyx",
        "put_skip(&job.step, own(t, y, t.scratch.e[(l + 1) & 1]) if y.skip else nothing())",
        "put_skip(&job.step, nothing())",
    ),
    ("fastcurv/_engine/passes.pyx", "for x in range(t.count):", "for x in range(1):"),
    ("fastcurv/_engine/passes.pyx", "start_sum(t, y, &job, add)", "start_sum(t, y, &job, False)"),
    ("fastcurv/_engine/r_passes.pyx", "start_sum(t, y, job, add)", "start_sum(t, y, job, False)"),
    (
        "fastcurv/_engine/r_passes.pyx",
        "total += 2 * total_of(P, t, &job)",
        "total += total_of(P, t, &job)",
    ),
    (
        "fastcurv/_engine/schedule.pyx",
        "add = panel > begin or (shares == 1 and job.add)",
        "add = panel > begin",
    ),
    ("fastcurv/_engine/schedule.pyx", "add = group > 0 or job.add", "add = group > 0"),
    (
        "fastcurv/_engine/schedule.pyx",
        "member if job.passing else panel - P.before)",
        "0 if job.passing else panel - P.before)",
    ),
    ("fastcurv/_engine/products.pyx", "t.x0 // state_of(t.P, 1)", "t.r0 // state_of(t.P, 1)"),
    (
        "fastcurv/_engine/schedule.pyx",
        "job.totals[j] += take_quadratic(&t, job)",
        "job.totals[j] = take_quadratic(&t, job)",
    ),
    ("fastcurv/_engine/packing.pyx", "if part == 0:", "if part == 1:"),
    (
        "fastcurv/_engine/packing.pyx",
        "min(y.m, b.top + rows_of_block(c.P, y))",
        "b.top + rows_of_block(c.P, y)",
    ),
    ("fastcurv/_engine/packing.pyx", "c.odd[member] = True", "c.odd[member] = member > 0"),
    ("fastcurv/_engine/schedule.pyx", "if job.kind == HESSIAN:", "if job.kind != HESSIAN:"),
    (
        "fastcurv/_engine/schedule.pyx",
        "P.K.add_parts(count, groups, one, ld, job.add, out)",
        "P.K.add_parts(count, groups - 1, one, ld, job.add, out)",
    ),
    (
        "fastcurv/_engine/schedule.pyx",
        "P.K.add_parts(count, 1, one, ld, group > 0 or job.add, out)",
        "P.K.add_parts(count, 1, one, ld, job.add, out)",
    ),
    (
        "fastcurv/_engine/chunks.pyx",
        "for i in range(panels_of(P, rows) if tall else",
        "for i in range((rows + P.panel - 1) // P.panel if tall else",
    ),
    (
        "fastcurv/_engine/l2.pyx",
        "memset(t.out + t.run.taken * size, 0, t.run.spared * size)",
        "pass",
    ),
    (
        "fastcurv/_engine/across.pyx",
        "job.rank, job.add, job.w_ts, job.ldt, job.ld = y.m, add,",
        "job.rank, job.add, job.w_ts, job.ldt, job.ld = y.m, False,",
    ),
    (
        "fastcurv/_engine/across.pyx",
        "V_of(t, y).flat + y.w * size if full else NULL",
        "NULL",
    ),
    (
        "fastcurv/_engine/given.pyx",
        "P.K.columns(m, n, place_of(P, state, piece, ld),",
        "P.K.columns(m, n, at(P, state, 0, ld),",
    ),
    ("fastcurv/_engine/state.pxd", "and not (top.skip or (top - 1).skip)", ""),
    (
        "fastcurv/_engine/across.pyx",
        "step.next.u = bias_of(P, y, V)",
        "step.next.u = NULL",
    ),
    (
        "fastcurv/_engine/r_passes.pyx",
        "step.p = one + on",
        "step.p = one",
    ),
    (
        "fastcurv/_engine/products.pxd",
        "job.spent = not x.skip and x.norm == NULL",
        "job.spent = x.norm == NULL",
    ),
    ("fastcurv/_engine/r_passes.pyx", "P.n_layers - narrow_top(t)):", "P.n_layers):"),
    (
        "fastcurv/_engine/r_passes.pyx",
        "(forms or (quadratic and not y.derived))",
        "forms",
    ),
    (
        "fastcurv/_engine/plan.pyx",
        "return P.aside != NULL and P.chunk == P.N",
        "return P.aside != NULL",
    ),
    (
        "fastcurv/_engine/schedule.pyx",
        "if P.aside != NULL and v == job.out + j * job.out_step:",
        "if P.aside != NULL and v != job.out + j * job.out_step:",
    ),
]
