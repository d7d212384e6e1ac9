/* s8_depthwise_conv2d_up_dsp: see qcc_dsp_depthwise.h; accumulators are moved up, see qcc_arm_dsp.h. */
#define QCC_UP 1
#define QCC_DEPTHWISE qcc_s8_depthwise_conv2d_up_dsp
#include "qcc_dsp_depthwise.h"
