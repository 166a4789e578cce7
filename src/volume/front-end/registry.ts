import type { FrontEndModule } from './module.ts';
import { virtioBlkPci } from './virtio-blk-pci.ts';

/** The front end of a volume. There is one kind so far; a second one is a file beside it and a choice here. */
export function frontEndOf(): FrontEndModule {
  return virtioBlkPci;
}
