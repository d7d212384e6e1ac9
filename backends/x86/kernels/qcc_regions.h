/* Which taps of a convolution meet nothing but padding, by bands of outputs. Where the padding is zero, they add nothing. */
#ifndef QCC_REGIONS_H
#define QCC_REGIONS_H

#include "qcc_vectors.h"

/* Outputs side by side whose taps `tap` to tap + taps - 1 are those that may lie on the image. */
typedef struct {
  int32_t first, count, tap, taps;
} qcc_band;

/* The outputs along an axis whose first tap lies in the padding, those behind them, and those whose last tap lies there. */
static inline void qcc_bands(qcc_band *band, int32_t outputs, int32_t inputs, int32_t stride, int32_t kernel, int32_t dilation,
                             int32_t pad) {
  const int32_t end = pad + inputs, reach = (kernel - 1) * dilation;
  int32_t before = (pad + stride - 1) / stride, last = end > reach ? (end - reach + stride - 1) / stride : 0;
  before = before < outputs ? before : outputs;
  last = last < before ? before : last < outputs ? last : outputs;
  int32_t skipped = before ? (pad - (before - 1) * stride + dilation - 1) / dilation : 0;
  int32_t kept = last < outputs ? (end - last * stride + dilation - 1) / dilation : kernel;
  skipped = skipped < kernel ? skipped : kernel - 1;
  kept = kept < 1 ? 1 : kept < kernel ? kept : kernel;
  const qcc_band bands[3] = {
      {0, before, skipped, kernel - skipped}, {before, last - before, 0, kernel}, {last, outputs - last, 0, kept}};
  for (int i = 0; i < 3; ++i) {
    band[i] = bands[i];
  }
}

/* The same where nothing is left out: one band. */
static inline void qcc_whole(qcc_band *band, int32_t outputs, int32_t kernel) {
  const qcc_band none = {0, 0, 0, 0}, all = {0, outputs, 0, kernel};
  band[0] = none;
  band[1] = all;
  band[2] = none;
}

#endif
