// A client that sends headers as a test writes them, and a server's end.
import { once } from "node:events";
import { connect, type AddressInfo } from "node:net";
import type { Server } from "node:http";

export interface Reply {
  status: number;
  type: string | undefined;
  body: string;
}

/** Sends the pairs as they stand: no client library would. */
export async function ask(port: number, path: string, raw: readonly string[]): Promise<Reply> {
  let head = `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n`;
  for (let i = 0; i < raw.length; i += 2) head += `${raw[i]}: ${raw[i + 1]}\r\n`;
  const socket = connect(port, "127.0.0.1");
  socket.end(Buffer.from(`${head}\r\n`, "latin1"));
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  const [answer = "", ...rest] = Buffer.concat(chunks).toString("latin1").split("\r\n\r\n");
  return {
    status: Number(answer.slice(9, 12)),
    type: /^content-type: *(.*?)\r?$/im.exec(answer)?.[1],
    body: Buffer.from(rest.join("\r\n\r\n"), "latin1").toString(),
  };
}

/** Whether HTTP/1 carries this value as it stands. */
export function travels(raw: readonly string[]): boolean {
  return raw.every((text) => text === text.trim());
}

export async function listen(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}
