/* Which tiles to refine where a refined tile is worth more beside others: foveal/geometry/compact.py in C, with
   the same sums in the same order, so that choices are equal.
   Source: Charikar, "Greedy approximation algorithms for finding dense components in a graph", APPROX 2000. */
#pragma GCC optimize("fp-contract=off")
#include <stdlib.h>
#include "platform/export.h"
#include "program/program.h"

typedef struct {
    double loss;
    int64_t tile;
} Entry;

/* A heap of the tiles that are left: the one that loses least on top, of equal ones the last. An entry that is
   out of date stays until it comes up. */
typedef struct {
    Entry *entries;
    int64_t count;
} Heap;

static int before(Entry a, Entry b) { return a.loss != b.loss ? a.loss < b.loss : a.tile > b.tile; }

static void push(Heap *h, Entry e) {
    int64_t k = h->count++;
    for (; k > 0 && before(e, h->entries[(k - 1) / 2]); k = (k - 1) / 2) h->entries[k] = h->entries[(k - 1) / 2];
    h->entries[k] = e;
}

static Entry pop(Heap *h) {
    const Entry top = h->entries[0], last = h->entries[--h->count];
    int64_t k = 0;
    for (int64_t child; (child = 2 * k + 1) < h->count; k = child) {
        if (child + 1 < h->count && before(h->entries[child + 1], h->entries[child])) child++;
        if (!before(h->entries[child], last)) break;
        h->entries[k] = h->entries[child];
    }
    h->entries[k] = last;
    return top;
}

/* The up to eight tiles around one, in reading order; returns how many. */
static int32_t neighbours(int64_t tile, int32_t rows, int32_t columns, int64_t *out) {
    const int64_t y = tile / columns, x = tile % columns;
    int32_t count = 0;
    for (int64_t i = y - 1; i <= y + 1; i++)
        for (int64_t j = x - 1; j <= x + 1; j++)
            if (i >= 0 && i < rows && j >= 0 && j < columns && (i != y || j != x)) out[count++] = i * columns + j;
    return count;
}

/* Choose `count` of the tiles that cost something, so that they are compact and gain much: mask [rows][columns].
   -1 without memory. */
EXPORT int32_t foveal_choose_tiles(
    const double *values, const double *costs, int32_t rows, int32_t columns, double isolated, int64_t count, uint8_t *chosen)
{
    const int64_t tiles = (int64_t)rows * columns;
    int64_t near[8], left = 0;
    double *loss = malloc((size_t)tiles * 2 * sizeof *loss), *share = loss + tiles;
    Heap heap = {malloc((size_t)tiles * 9 * sizeof(Entry)), 0};
    const int status = loss && heap.entries ? 0 : -1;
    for (int64_t k = 0; k < tiles && !status; k++) {
        const int32_t around = neighbours(k, rows, columns, near);
        chosen[k] = costs[k] > 0;
        share[k] = (1.0 - isolated) * values[k] / (around ? around : 1);
        left += chosen[k];
    }
    for (int64_t k = 0; k < tiles && !status; k++) {
        if (!chosen[k]) continue;
        loss[k] = isolated * values[k];
        for (int32_t i = 0, around = neighbours(k, rows, columns, near); i < around; i++)
            if (chosen[near[i]]) loss[k] += share[k] + share[near[i]];
        push(&heap, (Entry){loss[k], k});
    }
    while (!status && left > count) {
        const Entry least = pop(&heap);
        const int64_t k = least.tile;
        if (!chosen[k] || least.loss != loss[k]) continue; /* out of date */
        chosen[k] = 0, left--;
        for (int32_t i = 0, around = neighbours(k, rows, columns, near); i < around; i++) {
            const int64_t other = near[i];
            if (!chosen[other]) continue;
            loss[other] -= share[k] + share[other];
            push(&heap, (Entry){loss[other], other});
        }
    }
    free(loss), free(heap.entries);
    return status;
}
