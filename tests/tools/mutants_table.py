"""The scripted mutants as tuples (file, old, new): `old` occurs once in the file and is replaced by
`new`.
"""

KERNELS = [
    # matrix products
    (
        "gemm.inc",
        "return n / parts * i + (n % parts < i ? n % parts : i);",
        "return n / parts * i;",
    ),
    ("gemm.inc", "*done += k;", "*done += k + (k > 8);"),
    ("gemm.inc", "job->accumulate || round > 0", "job->accumulate"),
    ("gemm.inc", "s[q].b_vs = s[q].k * VL", "s[q].b_vs = VL"),
    ("gemm.inc", "if (job->unpadded && cols < nv * VL)", "if (0)"),
    (
        "gemm.inc",
        "(epilogue && (deep || q + 1 == tiles",
        "(epilogue && (deep || q + 2 == tiles",
    ),
    ("gemm.inc", "done = i + mr;", "done = i;"),
    # epilogues that are deferred to the next tile
    (
        "gemm.inc",
        "if (!defers || deferred->nv != nv) NAME(run_deferred)(deferred);",
        "if (!defers) NAME(run_deferred)(deferred);",
    ),
    (
        "gemm.inc",
        "packed); } NAME(run_deferred)(&room->deferred);",
        "packed); }",
    ),
    # packed A, and A with more rows than the cache holds
    ("gemm.inc", "of_tile[t].a_cs = mr;", "of_tile[t].a_cs = FC_DEEP_MR;"),
    ("gemm.inc", "if (packed) packed += NAME(packed_tile)(s, slices);", ""),
    ("gemm.inc", "top < i1; top += block", "top < i1; top += i1 - i0"),
    (
        "gemm.inc",
        "== 64) ? NAME(depth_of)(s, slices) / NAME(heights)[nv - 1]",
        "== 64) ? NAME(depth_of)(s, slices)",
    ),
    ("stack.inc", "NAME(run_deferred)(&room->deferred);", ""),
    ("tile.inc", "w->rows--, w->i++, w->c += w->ldc;", "w->rows--, w->i++;"),
    ("gemm.inc", "const ptrdiff_t ldc = buffered ? nv * VL", "const ptrdiff_t ldc = buffered ? VL"),
    ("gemm.inc", "else s[q].b += j / VL * s[q].b_vs;", "else s[q].b += j / VL * VL;"),
    ("gemm.inc", "(const REAL *)t->a + *done * t->a_cs", "(const REAL *)t->a + *done * t->a_rs"),
    (
        "gemm.inc",
        "const ptrdiff_t i0 = row_item * job->row_block, j0 =",
        "const ptrdiff_t i0 = row_item * (job->row_block - 1), j0 =",
    ),
    # stacks of vectors
    ("stack.inc", "s[t].a += x * st->a[t];", "s[t].a += x * st->b[t];"),
    ("stack.inc", "s[t].b += x * st->b[t] + v * s[t].b_vs;", "s[t].b += x * st->b[t];"),
    ("stack.inc", "if (s->skip) s->skip = (const REAL *)s->skip + x * st->own;", ""),
    ("stack.inc", "if (s->sums) s->sums = (REAL *)s->sums + x * st->own;", ""),
    ("stack.inc", "of[q] = a + q * next_a;", "of[q] = a;"),
    ("stack.inc", "if (term < job->n_terms) return 0;", ""),
    # short and narrow matrices
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
    # products with vectors as rows
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
    ("rows.inc", "left > 1 ? NAME(ceil_div)(rows, left)", "left > 2 ? NAME(ceil_div)(rows, left)"),
    ("rows.inc", "if (squares && i + nq == m)", "if (squares && i == 0)"),
    ("rows.inc", "left >= 4 ? 4 :", "left >= 3 ? 4 :"),
    ("rows.inc", "images += b * f[r];", "images -= b * f[r];"),
    ("rows.inc", "for (whole = i; i < n;", "for (whole = 0; i < n;"),
    # copies and sums
    ("sweeps.inc", "y[j] = j < cols ? x[j] : (REAL)0;", "if (j < cols) y[j] = x[j];"),
    (
        "sweeps.inc",
        "out[i * o_rs + j] = j < cols ? in[i * rs + j * cs] : (REAL)0;",
        "if (j < cols) out[i * o_rs + j] = in[i * rs + j * cs];",
    ),
    (
        "transpose.inc",
        "if (i < rows) put(out + i * ldo, x[i], bypass);",
        "put(out + i * ldo, x[i], bypass);",
    ),
    ("sweeps.inc", "VEC sum = add ? load(y + i) : (VEC){0};", "VEC sum = (VEC){0};"),
    ("sweeps.inc", "REAL sum = add ? y[i] : 0;", "REAL sum = 0;"),
    ("sweeps.inc", "splat((REAL)alpha) * load(in + i)", "load(in + i)"),
    ("sweeps.inc", "to[i] = (REAL)alpha * in[i];", "to[i] = in[i];"),
    ("sweeps.inc", "out + j * rows, VL, bypass);", "out + j * (i1 - i0), VL, bypass);"),
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
        "blend(z <= 0, splat((REAL)FC_LEAKY_RELU_SLOPE), z)",
        "blend(z < 0, splat((REAL)FC_LEAKY_RELU_SLOPE), z)",
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
    # transposed layout: layers of few units
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
    ("narrow.inc", "store(c + x * VL, z);", ";"),
    ("narrow.inc", "if (has_second) e += wr[t] * d[t][x];", ""),
    ("narrow.inc", "along += along;", ""),
    ("narrow.inc", "if (stored_q) total[x] += load(q + x * VL) * z * z;", ""),
    ("narrow.inc", "total[x] = form && i ?", "total[x] = 0 ?"),
    ("narrow.inc", "= sign || paired ? slope : load(a", "= sign || paired ? slope : load(c"),
    ("narrow.inc", "if (paired && form) input *= a_by, slope *= p_by;", ""),
    ("narrow.inc", "splat(paired && !form ? a_by *", "splat(paired && !form ? p_by *"),
    ("narrow.inc", "rd_a[t] = rd[t] * (a_by / p_by);", "rd_a[t] = rd[t];"),
    (
        "narrow.inc",
        "how == NAME(BY_SIGMOID) ? 1 - (aj + aj)",
        "how == NAME(BY_SIGMOID) ? -(aj + aj)",
    ),
    ("activations.inc", "blend(near, m, e + e)", "blend(near, m, e)"),
    ("activations.inc", "^ (~near & (IVEC)splat(2))", ""),
    ("activations.inc", "if (nan) {", "if (0) {"),
    ("activations.inc", "l < n - i; l++) from.x[l]", "l < n - i - 1; l++) from.x[l]"),
    ("narrow.inc", "splat(n->u && i + rows == n->units ?", "splat(n->u ?"),
    ("narrow.inc", ": cols > VL ? 2 : 1;", ": cols > 0 ? 2 : 1;"),
    ("narrow.inc", "nv = cols > 3 * VL &&", "nv = cols > 2 * VL &&"),
    ("narrow.inc", "const REAL flat = n->phi == FC_SIGMOID;", "const REAL flat = 0;"),
    ("narrow.inc", "e = t ? e + w[u][t] * from : w[u][t] * from;", "e = w[u][t] * from;"),
    ("narrow.inc", "load(q + at) * second * rz", "load(q + at) * rz"),
    ("narrow.inc", "if (full) sum[u][t] += slope * along;", ""),
    ("narrow.inc", "const ptrdiff_t at = u * ld + j;", "const ptrdiff_t at = j;"),
    ("narrow.inc", "sums[u] = whole[u];", "sums[u] = (VEC){0};"),
    ("narrow.inc", "count - l > 1 && n->rank", "count - l > 0 && n->rank"),
    ("narrow.inc", "if (count == VL) {", "if (count > 0) {"),
    ("narrow.inc", "store(out, add ? load(out) + x : x);", "store(out, x);"),
    ("narrow.inc", "out[l] = add ? out[l] + u.x[l] : u.x[l];", "out[l] = u.x[l];"),
    # transposed layout: losses
    ("transposed.inc", "chain[j % VL] = j < VL ? x : chain[j % VL] + x;", "chain[j % VL] = x;"),
    ("transposed.inc", "x[(l < left ? l : left - 1) * step]", "x[l * step]"),
    ("transposed.inc", "if (j % VL == 0) NAME(transpose)", "if (j == 0) NAME(transpose)"),
    ("transposed.inc", "return load(square + j % VL * VL);", "return load(square);"),
    ("transposed.inc", "(VEC)((IVEC)p & counts)", "p"),
    ("transposed.inc", "factor * (rest - T * (S * share))", "factor * (rest - T * share)"),
    ("transposed.inc", "row = i + x < rows ? i + x : rows - 1", "row = i + x"),
    # products with few rows
    ("sweeps.inc", "acc[q] += v * (VEC){0};", "acc[q] = v * (VEC){0};"),
    (
        "sweeps.inc",
        "    for (; i < n; i++) sum += (to[i] = in[i]) * 0;",
        "    for (; i < n; i++) to[i] = in[i];",
    ),
    (
        "sweeps.inc",
        "FC_VECTOR_BYTES; i++) sum += (to[i] = in[i]) * 0;",
        "FC_VECTOR_BYTES; i++) to[i] = in[i];",
    ),
    (
        "gemm.inc",
        "NAME(begin_epilogue_of)(job, &epilogue, row_item, col_item, j0, end - j0);",
        "NAME(begin_epilogue_of)(job, &epilogue, row_item, 0, j0, end - j0);",
    ),
]

PASSES = [
    (
        "fastcurv/_engine/passes.pyx",
        "set_skip(&job.epilogue, below if y.skip and not y.user_phi else null_matrix())",
        "set_skip(&job.epilogue, null_matrix())",
    ),
    (
        "fastcurv/_engine/passes.pyx",
        "scratch_matrix(t, y, t.scratch.e[(l + 1) & 1]) if y.skip else null_matrix()",
        "null_matrix()",
    ),
    ("fastcurv/_engine/passes.pyx", "for x in range(t.count):", "for x in range(1):"),
    (
        "fastcurv/_engine/passes.pyx",
        "begin_sum_over_rows(t, y, &job, add)",
        "begin_sum_over_rows(t, y, &job, False)",
    ),
    (
        "fastcurv/_engine/r_passes.pyx",
        "begin_sum_over_rows(t, y, job, add)",
        "begin_sum_over_rows(t, y, job, False)",
    ),
    (
        "fastcurv/_engine/r_passes.pyx",
        "total += 2 * sum_item_totals(P, t, &job)",
        "total += sum_item_totals(P, t, &job)",
    ),
    (
        "fastcurv/_engine/schedule.pyx",
        "add = panel > begin or (units == 1 and job.add)",
        "add = panel > begin",
    ),
    ("fastcurv/_engine/schedule.pyx", "add = group > 0 or job.add", "add = group > 0"),
    (
        "fastcurv/_engine/schedule.pyx",
        "member if job.transient else panel - P.before)",
        "0 if job.transient else panel - P.before)",
    ),
    (
        "fastcurv/_engine/products.pyx",
        "t.x0 // state_row_of_panel(t.P, 1)",
        "t.r0 // state_row_of_panel(t.P, 1)",
    ),
    (
        "fastcurv/_engine/schedule.pyx",
        "job.totals[j] += compute_quadratic_form(&t, job)",
        "job.totals[j] = compute_quadratic_form(&t, job)",
    ),
    ("fastcurv/_engine/packing.pyx", "if part == 0:", "if part == 1:"),
    (
        "fastcurv/_engine/packing.pyx",
        "min(y.m, b.top + rows_per_block(c.P, y))",
        "b.top + rows_per_block(c.P, y)",
    ),
    (
        "fastcurv/_engine/packing.pyx",
        "c.not_finite[member] = True",
        "c.not_finite[member] = member > 0",
    ),
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
        "for i in range( count_panels(P, rows) if by_panels else",
        "for i in range((rows + P.panel - 1) // P.panel if by_panels else",
    ),
    (
        "fastcurv/_engine/l2.pyx",
        "memset(t.out + t.run.penalised * size, 0, t.run.unpenalised * size)",
        "pass",
    ),
    (
        "fastcurv/_engine/transposed.pyx",
        "job.rank, job.add, job.w_ts, job.ldt, job.ld = y.m, add,",
        "job.rank, job.add, job.w_ts, job.ldt, job.ld = y.m, False,",
    ),
    (
        "fastcurv/_engine/transposed.pyx",
        "weights_of_v(t, y).flat + y.w * size if full else NULL",
        "NULL",
    ),
    (
        "fastcurv/_engine/callbacks.pyx",
        "P.K.transpose_columns( m, n, piece_address(P, state, piece, ld),",
        "P.K.transpose_columns(m, n, row_address(P, state, 0, ld),",
    ),
    ("fastcurv/_engine/state.pxd", "and not (top.skip or (top - 1).skip)", ""),
    (
        "fastcurv/_engine/transposed.pyx",
        "epilogue.next.u = bias_address(P, y, V)",
        "epilogue.next.u = NULL",
    ),
    (
        "fastcurv/_engine/r_passes.pyx",
        "epilogue.p = one + on",
        "epilogue.p = one",
    ),
    (
        "fastcurv/_engine/products.pxd",
        "job.c_unused = not x.skip and x.norm == NULL",
        "job.c_unused = x.norm == NULL",
    ),
    ("fastcurv/_engine/r_passes.pyx", "P.n_layers - has_narrow_output(t)):", "P.n_layers):"),
    (
        "fastcurv/_engine/r_passes.pyx",
        "(forms or (quadratic and not y.derived))",
        "forms",
    ),
    (
        "fastcurv/_engine/plan.pyx",
        "return P.saved_v != NULL and P.chunk == P.N",
        "return P.saved_v != NULL",
    ),
    (
        "fastcurv/_engine/schedule.pyx",
        "if P.saved_v != NULL and v == job.out + j * job.out_step:",
        "if P.saved_v != NULL and v != job.out + j * job.out_step:",
    ),
    # Levenberg-Marquardt
    (
        "fastcurv/_engine/levenberg.pyx",
        "self.more[i] += self.l2[i] * self.s[i]",
        "self.more[i] += 0",
    ),
    (
        "fastcurv/_engine/levenberg.pyx",
        "self.more[i] = self.g[i] + self.damping * self.s[i]",
        "self.more[i] = self.g[i]",
    ),
    ("fastcurv/_engine/levenberg.pyx", "A + first, ld, 1,", "A + first, ld, 0,"),
    ("fastcurv/_engine/levenberg.pyx", "if not self.formed:", "if False:"),
    ("fastcurv/_engine/gauss_newton.pyx", "if self.exponents[l]:", "if False:"),
    (
        "fastcurv/_engine/callbacks.pyx",
        "out += n * size\n\n\ncdef void copy_pieces_to_state",
        "out += size\n\n\ncdef void copy_pieces_to_state",
    ),
    ("fastcurv/_engine/gauss_newton.pyx", "not hessian and self.block == self.ld", "not hessian"),
    ("fastcurv/_engine/gauss_newton.pyx", "if count < P.N:", "if 0:"),
    ("fastcurv/_engine/gauss_newton.pyx", "if scale != 1:", "if 0:"),
    (
        "fastcurv/_engine/gauss_newton.pyx",
        "1, y.m, step, self.a[l] + y.k * step",
        "1, y.m, step, self.a[l]",
    ),
]
