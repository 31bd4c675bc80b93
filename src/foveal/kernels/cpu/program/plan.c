/* Which nodes of a forest to refine for a budget: foveal/geometry/planner.py in C, with the same sums in the
   same order, so that plans are equal.
   Source: Chou, Lookabaugh, Gray, "Optimal pruning with applications to tree-structured source coding and
   modeling", IEEE Transactions on Information Theory 1989 (generalised BFOS). */
#pragma GCC optimize("fp-contract=off")
#include <stdlib.h>
#include "program/program.h"

/* Room for a forest over a grid of cells: map k has nodes of level finest + depth - 1 - k. */
int forest_make(Forest *f, int32_t rows, int32_t columns, int32_t finest, int32_t depth) {
    size_t nodes = 0;
    f->depth = depth;
    for (int32_t k = 0; k < depth; k++) {
        const int32_t level = finest + depth - 1 - k;
        f->rows[k] = ((rows - 1) >> level) + 1, f->columns[k] = ((columns - 1) >> level) + 1;
        nodes += (size_t)f->rows[k] * (size_t)f->columns[k];
    }
    f->memory = malloc(nodes * (3 * sizeof(double) + 1));
    if (!f->memory) return -1;
    double *at = f->memory;
    for (int32_t k = 0; k < depth; k++) {
        const size_t n = (size_t)f->rows[k] * (size_t)f->columns[k];
        f->gain[k] = at, f->cost[k] = at + n, f->rate[k] = at + 2 * n, at += 3 * n;
    }
    uint8_t *mark = (uint8_t *)at;
    for (int32_t k = 0; k < depth; k++) f->chosen[k] = mark, mark += (size_t)f->rows[k] * (size_t)f->columns[k];
    return 0;
}

void forest_free(Forest *f) { free(f->memory); }

/* Sum over aligned squares of 2^level cells, the last ones cut by the edge: two by two, level by level. */
void sum_squares(const double *x, int32_t rows, int32_t columns, int32_t level, double *out) {
    const int32_t tall = ((rows - 1) >> level) + 1, wide = ((columns - 1) >> level) + 1;
    for (int32_t i = 0; i < tall; i++)
        for (int32_t j = 0; j < wide; j++) {
            double part[1 << (2 * (MOST_LEVELS - 1))];
            part[0] = 0;
            int32_t side = 1 << level;
            for (int32_t a = 0; a < side; a++)
                for (int32_t b = 0; b < side; b++) {
                    const int32_t y = (i << level) + a, z = (j << level) + b;
                    part[a * side + b] = y < rows && z < columns ? x[(int64_t)y * columns + z] : 0.0;
                }
            for (; side > 1; side /= 2)
                for (int32_t a = 0; a < side / 2; a++)
                    for (int32_t b = 0; b < side / 2; b++)
                        part[a * (side / 2) + b] = (part[2 * a * side + 2 * b] + part[2 * a * side + 2 * b + 1]) +
                                                   (part[(2 * a + 1) * side + 2 * b] + part[(2 * a + 1) * side + 2 * b + 1]);
            out[(int64_t)i * wide + j] = part[0];
        }
}

typedef struct {
    double gain, cost, rate;
} Node;

typedef struct {
    Node *nodes;
    int64_t count;
} Tree;

static double ratio(double gain, double cost) { return cost > 0 ? gain / cost : gain >= 0 ? INFINITY : -INFINITY; }

/* Join up to four trees in falling order of rate; among equal rates the first tree comes first. */
static int64_t merge(Tree *const *trees, int32_t count, Node *out) {
    int64_t at[4] = {0}, total = 0;
    for (;;) {
        int32_t best = -1;
        for (int32_t k = 0; k < count; k++)
            if (at[k] < trees[k]->count && (best < 0 || trees[k]->nodes[at[k]].rate > trees[best]->nodes[at[best]].rate)) best = k;
        if (best < 0) return total;
        out[total++] = trees[best]->nodes[at[best]++];
    }
}

/* Put a root on top of its descendants, out[1 .. count]; return its rate. */
static double add_root(Node *out, int64_t count, double gain, double cost) {
    double total_gain = gain, total_cost = cost, rate = ratio(gain, cost);
    for (int64_t k = 1; k <= count; k++) {
        total_gain += out[k].gain, total_cost += out[k].cost;
        const double here = ratio(total_gain, total_cost);
        rate = here > rate ? here : rate;
    }
    for (int64_t k = 1; k <= count; k++) out[k].rate = out[k].rate < rate ? out[k].rate : rate;
    out[0] = (Node){gain, cost, rate};
    return rate;
}

/* Rate of every node: the gain per cost at which it enters. -1 without memory. */
int forest_rates(Forest *f) {
    int64_t nodes = 0;
    for (int32_t k = 0; k < f->depth; k++) nodes += (int64_t)f->rows[k] * f->columns[k];
    Node *store[2] = {malloc((size_t)nodes * sizeof(Node)), malloc((size_t)nodes * sizeof(Node))};
    Tree *trees[2] = {malloc((size_t)nodes * sizeof(Tree)), malloc((size_t)nodes * sizeof(Tree))};
    const int there = store[0] && store[1] && trees[0] && trees[1];
    for (int32_t k = f->depth - 1; there && k >= 0; k--) {
        Node *to = store[k & 1];
        Tree *below = trees[(k + 1) & 1], *here = trees[k & 1];
        const int leaf = k == f->depth - 1;
        for (int32_t i = 0; i < f->rows[k]; i++)
            for (int32_t j = 0; j < f->columns[k]; j++) {
                Tree *children[4];
                int32_t count = 0;
                for (int32_t c = 0; c < 4 && !leaf; c++) {
                    const int32_t y = 2 * i + c / 2, x = 2 * j + c % 2;
                    if (y < f->rows[k + 1] && x < f->columns[k + 1]) children[count++] = &below[(int64_t)y * f->columns[k + 1] + x];
                }
                const int64_t node = (int64_t)i * f->columns[k] + j, found = merge(children, count, to + 1);
                f->rate[k][node] = add_root(to, found, f->gain[k][node], f->cost[k][node]);
                here[node] = (Tree){to, found + 1};
                to += found + 1;
            }
    }
    for (int32_t k = 1; there && k < f->depth; k++)
        for (int32_t i = 0; i < f->rows[k]; i++)
            for (int32_t j = 0; j < f->columns[k]; j++) {
                double *rate = &f->rate[k][(int64_t)i * f->columns[k] + j];
                const double above = f->rate[k - 1][(int64_t)(i / 2) * f->columns[k - 1] + j / 2];
                *rate = above < *rate ? above : *rate;
            }
    free(store[0]), free(store[1]), free(trees[0]), free(trees[1]);
    return there ? 0 : -1;
}

typedef struct {
    double rate, cost;
    uint8_t *chosen;
    int64_t order;
} Candidate;

static int falling(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->rate != y->rate) return x->rate > y->rate ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* How many candidates, in falling order, are chosen: `_count` of the planner, filling the budget. */
static int64_t count_paid(const Candidate *c, int64_t all, double budget) {
    double total = 0, last = 0, at_corner = 0;
    int64_t count = 0, corner = 0;
    for (; count < all && total + c[count].cost <= budget; count++) total += c[count].cost;
    if (count == 0 || c[count - 1].rate == INFINITY) return count;
    while (c[corner].rate > c[count - 1].rate) corner++;
    for (int64_t k = 0; k < count; k++) {
        last += c[k].cost;
        if (k + 1 == corner) at_corner = last;
    }
    return last == at_corner ? corner : count;
}

/* Mark the nodes of all forests that one budget pays for, in falling order of rate; among equal rates coarser
   ones, earlier forests and earlier cells come first. Forests have one depth. -1 without memory. */
int forest_choose(Forest *const *forests, int32_t count, double budget) {
    int64_t nodes = 0, at = 0;
    for (int32_t n = 0; n < count; n++)
        for (int32_t k = 0; k < forests[n]->depth; k++) nodes += (int64_t)forests[n]->rows[k] * forests[n]->columns[k];
    Candidate *candidates = malloc((size_t)(nodes + 1) * sizeof *candidates);
    if (!candidates) return -1;
    for (int32_t k = 0; k < forests[0]->depth; k++)
        for (int32_t n = 0; n < count; n++) {
            const Forest *f = forests[n];
            for (int64_t i = 0; i < (int64_t)f->rows[k] * f->columns[k]; i++, at++) {
                candidates[at] = (Candidate){f->rate[k][i], f->cost[k][i], &f->chosen[k][i], at};
                f->chosen[k][i] = 0;
            }
        }
    qsort(candidates, (size_t)nodes, sizeof *candidates, falling);
    const int64_t paid = count_paid(candidates, nodes, budget);
    for (int64_t k = 0; k < paid; k++) *candidates[k].chosen = 1;
    free(candidates);
    return 0;
}
