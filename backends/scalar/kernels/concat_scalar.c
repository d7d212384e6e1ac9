/* Concatenation along any axis: each block of the output is one run of bytes of every operand in turn.
 *
 *   output = for each block: operand 0 [block_bytes[0]], operand 1 [block_bytes[1]], ...
 *
 * inputs: one pointer for each operand, NULL for those that lie in constant, one after the other. No operand
 * overlaps the output.
 * Reference: Concat in qcc/ir/ops/shape.py.
 */
#include "qcc_movement.h"

/* gcc makes memmove of a plain loop, which a bare-metal program need not have; memcpy it may call in any case. */
#if defined(__GNUC__)
#define COPY_BYTES(to, from, bytes) __builtin_memcpy(to, from, (size_t)(bytes))
#else
#define COPY_BYTES(to, from, bytes)       \
  for (int32_t i = 0; i < (bytes); ++i) { \
    (to)[i] = (from)[i];                  \
  }
#endif

void qcc_concat_scalar(const qcc_concat_params *params, const void *const *inputs,
                       const int32_t *QCC_RESTRICT block_bytes, const void *QCC_RESTRICT constant,
                       void *QCC_RESTRICT output) {
  const unsigned char *constants = (const unsigned char *)constant;
  ptrdiff_t total = 0;
  ptrdiff_t start = 0;
  for (int32_t k = 0; k < params->inputs; ++k) {
    total += block_bytes[k];
  }
  for (int32_t k = 0; k < params->inputs; ++k) {
    const int32_t bytes = block_bytes[k];
    const unsigned char *from = (const unsigned char *)inputs[k];
    unsigned char *to = (unsigned char *)output + start;
    if (from == NULL) {
      from = constants;
      constants += (ptrdiff_t)bytes * params->blocks;
    }
    for (int32_t block = 0; block < params->blocks; ++block) {
      COPY_BYTES(to, from, bytes);
      from += bytes;
      to += total;
    }
    start += bytes;
  }
}
