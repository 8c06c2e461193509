// A small client of Aforo for Node 20 and newer, browsers and edge runtimes: one file, no package.
// Events wait in memory: what must survive a restart goes through a spool, as the Python client's.

export type Value = string | number | boolean | null | Value[] | { [name: string]: Value };

export interface UsageEvent {
  type: string;
  /** Your own id of the customer; `apiKey`, a key of the customer, may stand in its place. */
  customer?: string;
  apiKey?: string;
  /** When it happened; now, where it is left out. */
  occurredAt?: Date;
  /** The same event has the same key, however often it is tracked; random, where it is left out. */
  idempotencyKey?: string;
  /** Numbers are whole; others are not exact in JavaScript and are sent as text, such as "0.25". */
  properties?: { [name: string]: Value };
}

export interface Verdict {
  idempotencyKey: string;
  verdict: 'DUPLICATE' | 'CONFLICT' | 'REJECTED' | 'QUARANTINED' | 'REFUSED';
  code: string;
  message: string;
  eventId: string | null;
}

export interface Options {
  url: string;
  key: string;
  /** Told of every event that was not counted. */
  onVerdict?: (verdict: Verdict) => void;
  /** Events of one request, 1 to 1,000. */
  batchEvents?: number;
  /** Or so long after the first of them. */
  lingerMs?: number;
  /** Events that may wait; `track` throws where there is no room. */
  waitingMax?: number;
  timeoutMs?: number;
}

/** An answer that stays the same until a person does something: the key, its scope, the address. */
export class AforoRefused extends Error {
  override name = 'AforoRefused';

  constructor(
    readonly status: number,
    said: string,
  ) {
    super(`status ${status}: ${said}`);
  }
}

/** What GraphQL answered in place of data. */
export class AforoGraphQLError extends Error {
  override name = 'AforoGraphQLError';

  constructor(readonly errors: { message: string; extensions?: { code?: string } }[]) {
    super(errors.map(({ message, extensions }) => `${extensions?.code}: ${message}`).join('; '));
  }
}

interface Waiting {
  key: string;
  json: string;
}

interface Answer {
  accepted: number;
  verdicts: (Verdict & { index: number })[];
}

type Outcome = { answer: Answer } | { tooLarge: string } | { again: string; afterMs: number };

const BACKOFF_MS = 200;
const BACKOFF_MAX_MS = 30_000;
const RETRY_AFTER_MAX_SECONDS = 3_600;
const COMPRESSED_FROM = 512;
const sleep = (ms: number) => new Promise<void>((resume) => setTimeout(resume, ms));

export class Aforo {
  private readonly options: Required<Options>;
  private waiting: Waiting[] = [];
  private sending: Promise<void> | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private compress = true;

  constructor(options: Options) {
    this.options = {
      onVerdict: () => {},
      batchEvents: 500,
      lingerMs: 500,
      waitingMax: 10_000,
      timeoutMs: 30_000,
      ...options,
    };
  }

  /** Keep an event, to be sent soon; gives its idempotency key. Throws where it cannot be sent. */
  track(event: UsageEvent): string {
    if (event.customer === undefined && event.apiKey === undefined) {
      throw new TypeError('an event names its customer, or an apiKey of the customer');
    }
    if (this.waiting.length >= this.options.waitingMax) {
      throw new RangeError(`${this.waiting.length} events wait already; this one was not kept`);
    }
    const key = event.idempotencyKey ?? crypto.randomUUID();
    const occurredAt = event.occurredAt ?? new Date();
    this.waiting.push({ key, json: JSON.stringify({ ...event, idempotencyKey: key, occurredAt }, exact) });
    if (this.waiting.length >= this.options.batchEvents) {
      this.inTheBackground();
    } else {
      this.timer ??= setTimeout(() => this.inTheBackground(), this.options.lingerMs);
    }
    return key;
  }

  /** How many events have no verdict yet. */
  get waitingCount(): number {
    return this.waiting.length;
  }

  /** Send what waits; resolves when every verdict is known. Rejects with `AforoRefused`. */
  async flush(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.sending ??= this.sendAll().finally(() => {
      this.sending = undefined;
    });
    await this.sending;
  }

  /** Run a GraphQL operation. Rejects with `AforoGraphQLError` or `AforoRefused`. */
  async graphql<Data, Variables extends object = object>(
    query: string,
    variables?: Variables,
    tries = 5,
  ): Promise<Data> {
    const body = JSON.stringify({ query, variables });
    for (let attempt = 1; ; attempt += 1) {
      const response = await this.post('/graphql', body, {});
      const text = await response.text();
      if (passes(response.status) && attempt < tries) {
        await sleep(Math.max(backoff(attempt), retryAfter(response)));
        continue;
      }
      const { data, errors } = parsed(text) as { data?: Data; errors?: AforoGraphQLError['errors'] };
      if (errors) throw new AforoGraphQLError(errors);
      if (!response.ok || !data) throw new AforoRefused(response.status, text.slice(0, 300));
      return data;
    }
  }

  private inTheBackground(): void {
    // What is refused stays waiting, and is said to whoever asks for a flush.
    this.flush().catch(() => {});
  }

  private async sendAll(): Promise<void> {
    let size = this.options.batchEvents;
    for (let attempt = 1; this.waiting.length > 0; ) {
      const batch = this.waiting.slice(0, size);
      const outcome = await this.send(batch);
      if ('answer' in outcome) {
        this.waiting.splice(0, batch.length);
        outcome.answer.verdicts.forEach(({ index: _, ...verdict }) => this.tell(verdict));
        attempt = 1;
      } else if ('again' in outcome) {
        await sleep(Math.max(backoff(attempt), outcome.afterMs));
        attempt += 1;
      } else if (batch.length > 1) {
        size = Math.ceil(batch.length / 2);
      } else {
        this.waiting.splice(0, 1);
        const message = outcome.tooLarge;
        const idempotencyKey = batch[0]!.key;
        this.tell({ idempotencyKey, verdict: 'REFUSED', code: 'TOO_LARGE', message, eventId: null });
      }
    }
  }

  /** Send a batch once, under the keys that its events keep for ever. */
  private async send(batch: Waiting[]): Promise<Outcome> {
    const text = `[${batch.map(({ json }) => json).join(',')}]`;
    let response: Response;
    let said: string;
    try {
      const isPacked = this.compress && text.length >= COMPRESSED_FROM;
      const packed = isPacked ? await gzip(text) : text;
      response = await this.post('/v1/events', packed, isPacked ? { 'Content-Encoding': 'gzip' } : {});
      said = await response.text();
      if (response.status === 415 && isPacked) {
        this.compress = false; // An older server, or something before it.
        return { again: said, afterMs: 0 };
      }
    } catch (error) {
      return { again: String(error), afterMs: 0 }; // It may have been taken: the keys make it safe.
    }
    if (response.status === 202) {
      const answer = parsed(said) as Answer;
      const judged = (answer.accepted ?? -1) + (answer.verdicts?.length ?? 0);
      return judged === batch.length ? { answer } : { again: 'the answer is cut', afterMs: 0 };
    }
    if (response.status === 413) return { tooLarge: said };
    if (passes(response.status)) return { again: said, afterMs: retryAfter(response) };
    throw new AforoRefused(response.status, said.slice(0, 300));
  }

  private tell(verdict: Verdict): void {
    if (verdict.verdict === 'DUPLICATE') return; // So a retry ends: it was counted the first time.
    try {
      this.options.onVerdict(verdict);
    } catch (error) {
      console.error('onVerdict failed', error);
    }
  }

  private post(path: string, body: BodyInit, headers: Record<string, string>): Promise<Response> {
    return fetch(`${this.options.url.replace(/\/$/, '')}${path}`, {
      method: 'POST',
      headers: {
        Authorization: `Bearer ${this.options.key}`,
        'Content-Type': 'application/json',
        ...headers,
      },
      body,
      redirect: 'error', // The key is for this address alone.
      signal: AbortSignal.timeout(this.options.timeoutMs),
    });
  }
}

/** Whether the same request may well succeed later, without anybody doing anything. */
function passes(status: number): boolean {
  return [408, 425, 429].includes(status) || status >= 500;
}

/** Milliseconds: random, so that many clients do not come back at once. */
function backoff(attempt: number): number {
  return Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (attempt - 1)) * (0.5 + Math.random() / 2);
}

function retryAfter(response: Response): number {
  const seconds = Number(response.headers.get('Retry-After') ?? 0);
  return Number.isFinite(seconds) ? Math.min(seconds, RETRY_AFTER_MAX_SECONDS) * 1_000 : 0;
}

function exact(name: string, value: unknown): unknown {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new TypeError(`${name} is ${value}, which is not exact: send it as a text`);
  }
  return value;
}

function parsed(text: string): object {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

async function gzip(text: string): Promise<ArrayBuffer> {
  const packed = new Blob([text]).stream().pipeThrough(new CompressionStream('gzip'));
  return new Response(packed).arrayBuffer();
}
