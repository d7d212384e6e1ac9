/* s8_depthwise_conv2d_mve: see qcc_mve_depthwise.h. */
#define QCC_DEPTHWISE qcc_s8_depthwise_conv2d_mve
#include "qcc_mve_depthwise.h"
