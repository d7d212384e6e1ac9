/* s8_depthwise_conv2d_dsp: see qcc_dsp_depthwise.h. */
#define QCC_DEPTHWISE qcc_s8_depthwise_conv2d_dsp
#include "qcc_dsp_depthwise.h"
