// Moves bytes between the pages and DataNodes, in a worker of its own: whom it may talk to is in the policy that comes with this file.
// So the pages themselves talk to the NameNode alone, and a new DataNode only needs a new worker, not a new page.

const running = new Map(); // id -> how to stop it

async function get({ id, url, headers }) {
  const aborted = new AbortController();
  running.set(id, () => aborted.abort());
  try {
    const response = await fetch(url, { headers, signal: aborted.signal, referrerPolicy: "no-referrer" });
    const body = await response.arrayBuffer();
    postMessage({ id, status: response.status, text: response.statusText, body }, [body]);
  } catch (error) {
    postMessage({ id, status: 0, text: error.message });
  } finally { running.delete(id); }
}

function put({ id, url, file }) {
  const request = new XMLHttpRequest(); // unlike fetch, it tells how much has left
  const end = (status, text) => { running.delete(id); postMessage({ id, status, text }); };
  running.set(id, () => request.abort());
  request.upload.onprogress = (event) => postMessage({ id, sent: event.loaded });
  request.onload = () => end(request.status, request.responseText);
  request.onerror = () => end(0, "the connection broke");
  request.onabort = () => end(0, "cancelled");
  request.open("PUT", url);
  request.send(file);
}

onmessage = ({ data }) => {
  if (data.stop) { const stop = running.get(data.id); if (stop) stop(); }
  else if (data.file) put(data);
  else get(data);
};
