// The audit suite of the GraphQL-over-HTTP specification; prints every check with its verdict.
import { serverAudits } from 'graphql-http';

const { AFORO_URL, AFORO_API_KEY } = process.env;

const audits = serverAudits({
  url: `${AFORO_URL}/graphql`,
  fetchFn: (url, options = {}) =>
    fetch(url, {
      ...options,
      headers: { ...options.headers, Authorization: `Bearer ${AFORO_API_KEY}` },
    }),
});

const verdicts = [];
for (const audit of audits) {
  const { status, reason } = await audit.fn();
  verdicts.push({ id: audit.id, name: audit.name, status, reason: reason ?? null });
}
console.log(JSON.stringify(verdicts));
