// The GraphQL page: GraphiQL, a field for the API key, and the ready queries that the server sent.
import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { setNonce } from 'get-nonce';
import { GraphiQL } from 'graphiql';
import 'graphiql/style.css';
import { createClient } from 'graphql-ws';
import { useEffect, useMemo, useState } from 'react';
import { createRoot } from 'react-dom/client';
import './style.css';

const KEY_SLOT = 'aforo.apiKey';
const WITHOUT_KEY = {
  errors: [{ message: 'Put an API key into the field at the top: every request needs one.' }],
};

const { endpoint, queries } = JSON.parse(document.getElementById('config').textContent);
const readyTabs = queries.map((query) => ({ query }));

// Dialogs lock scrolling by a style element; the page's policy admits it only with the nonce.
setNonce(document.querySelector('script[nonce]').nonce);
createRoot(document.getElementById('graphiql')).render(<Page />);

function Page() {
  const [key, setKey] = useState(() => sessionStorage.getItem(KEY_SLOT) ?? '');
  const connection = useMemo(() => connect(key), [key]);
  useEffect(() => connection.close, [connection]);

  const keep = (changed) => {
    if (changed) sessionStorage.setItem(KEY_SLOT, changed);
    else sessionStorage.removeItem(KEY_SLOT);
    setKey(changed);
  };

  // No headers editor: GraphiQL's history writes headers to disk, and the key must not get there.
  return (
    <>
      <KeyBar apiKey={key} onKey={keep} />
      <GraphiQL
        fetcher={connection.fetcher}
        defaultTabs={readyTabs}
        isHeadersEditorEnabled={false}
        shouldPersistHeaders={false}
        inputValueDeprecation
      >
        <GraphiQL.Logo>GraphiQL</GraphiQL.Logo>
      </GraphiQL>
    </>
  );
}

// Requests over HTTP and subscriptions over one WebSocket, both with the key.
function connect(key) {
  if (!key) return { fetcher: async () => WITHOUT_KEY, close() {} };
  const authorization = { Authorization: `Bearer ${key}` };
  const socket = createClient({
    url: new URL(endpoint, location.href.replace(/^http/, 'ws')).href,
    connectionParams: authorization,
    retryAttempts: 0, // A refused key or a lost connection is shown at once, not after 30 s.
  });
  const fetcher = createGraphiQLFetcher({
    url: endpoint,
    headers: { Accept: 'application/graphql-response+json, application/json', ...authorization },
    wsClient: socket,
    enableIncrementalDelivery: false,
  });
  return { fetcher, close: () => socket.dispose() };
}

function KeyBar({ apiKey, onKey }) {
  const submit = (event) => {
    event.preventDefault();
    onKey(new FormData(event.currentTarget).get('key').trim());
  };
  // A masked text field, not a password field: browsers offer to keep passwords.
  return (
    <header className="aforo-bar">
      <strong>Aforo</strong>
      <form key={apiKey} onSubmit={submit}>
        <label htmlFor="aforo-key">API key</label>
        <input
          id="aforo-key"
          name="key"
          type="text"
          defaultValue={apiKey}
          placeholder="afo_live_…"
          pattern="\s*[!-~]+\s*"
          title="An API key: printable ASCII characters without spaces"
          autoComplete="off"
          autoCapitalize="off"
          autoCorrect="off"
          spellCheck={false}
          required
        />
        <button type="submit">Use key</button>
        {apiKey && (
          <button type="button" onClick={() => onKey('')}>
            Forget
          </button>
        )}
      </form>
      <span role="status">{apiKey ? 'Kept in this tab only' : 'No key yet'}</span>
    </header>
  );
}
