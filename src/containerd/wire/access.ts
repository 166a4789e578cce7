import type { Target } from '../../callers/gate.ts';
import type { RpcAccess } from '../../grpc/handlers.ts';

/**
 * What the methods of containerd's services need: all of them the role `admin`, which containerd has by its socket.
 * What changes something is taken down, as the API's is (api/access.ts).
 */

function row(audited: boolean, target: (request: never) => Target): RpcAccess {
  // The handler of the same name gets the same request: its type is that of the method's message.
  return { role: 'admin', audited, target: target as (request: unknown) => Target };
}

const sandbox = ({ sandboxId }: { readonly sandboxId: string }): Target => ({ sandboxId });
/** A task is a container, and its id the only name that the request has for it. */
const container = ({ id }: { readonly id: string }): Target => ({ sandboxId: id });
const nothing = (): Target => ({});

export const CONTAINERD_ACCESS: Readonly<Record<string, RpcAccess>> = {
  'Controller.Create': row(true, sandbox),
  'Controller.Start': row(true, sandbox),
  'Controller.Platform': row(false, nothing),
  'Controller.Stop': row(true, sandbox),
  'Controller.Wait': row(false, sandbox),
  'Controller.Status': row(false, sandbox),
  'Controller.Shutdown': row(true, sandbox),
  'Controller.Metrics': row(false, sandbox),
  'Controller.Update': row(true, sandbox),
  'Task.State': row(false, container),
  'Task.Create': row(true, container),
  'Task.Start': row(true, container),
  'Task.Delete': row(true, container),
  'Task.Pids': row(false, container),
  'Task.Pause': row(true, container),
  'Task.Resume': row(true, container),
  'Task.Checkpoint': row(true, container),
  'Task.Kill': row(true, container),
  'Task.Exec': row(true, container),
  'Task.ResizePty': row(false, container),
  'Task.CloseIO': row(false, container),
  'Task.Update': row(true, container),
  'Task.Wait': row(false, container),
  'Task.Stats': row(false, container),
  'Task.Connect': row(false, container),
  'Task.Shutdown': row(false, container),
};
