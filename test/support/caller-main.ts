import { credentials, type ServiceError } from '@grpc/grpc-js';
import { loadApi } from '../../src/grpc/schema.ts';
import type { CallerRequest } from './caller.ts';
import { decodeRefusal } from './errors.ts';

/** A caller in a process of its own, to be of another user: makes the calls that its parent asks for. */
const [target = ''] = process.argv.slice(2);
const { Sandboxes, Volumes, Operations, Events } = loadApi().qshim.v1;
const options = { 'grpc.use_local_subchannel_pool': 1 };
const clients = {
  Sandboxes: new Sandboxes(target, credentials.createInsecure(), options),
  Volumes: new Volumes(target, credentials.createInsecure(), options),
  Operations: new Operations(target, credentials.createInsecure(), options),
  Events: new Events(target, credentials.createInsecure(), options),
};

type Done = (error: ServiceError | null, value?: unknown) => void;
type Stream = NodeJS.EventEmitter & { cancel(): void };

const refused = (error: ServiceError): object => {
  try {
    return { refused: decodeRefusal(error) };
  } catch {
    return { refused: { code: String(error.code), reason: '', message: error.details, metadata: {} } };
  }
};

process.on('message', ({ number, service, method, request, stream }: CallerRequest) => {
  const answer = (content: object): void => void process.send?.({ number, ...content });
  const client = clients[service];
  // Clients have a method for each of their service's.
  const call = Reflect.get(client, method) as (request: object, done?: Done) => Stream;
  if (!stream) {
    call.call(client, request, (error, value) => answer(error === null ? { value } : refused(error)));
    return;
  }
  const messages = call.call(client, request);
  messages.on('metadata', () => answer({ open: true }));
  messages.on('data', (message: object) => answer({ message }));
  messages.on('error', (error: ServiceError) => answer(refused(error)));
});
process.on('disconnect', () => process.exit(0));
process.send?.({ number: 0, value: {} });
