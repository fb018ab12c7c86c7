/* Blocks of memory for plans, aligned to a page or, if large, to a huge page. */
#ifndef FC_BLOCK_H
#define FC_BLOCK_H
#include <stddef.h>

void *fc_block(size_t bytes); /* returns NULL if there is not enough memory */
void fc_block_free(void *block);
#endif
