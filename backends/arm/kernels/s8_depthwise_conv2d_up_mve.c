/* s8_depthwise_conv2d_up_mve: see qcc_mve_depthwise.h; accumulators are moved up, see qcc_arm_mve.h. */
#define QCC_UP 1
#define QCC_DEPTHWISE qcc_s8_depthwise_conv2d_up_mve
#include "qcc_mve_depthwise.h"
