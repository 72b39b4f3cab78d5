const url = process.env.TERBAYAR_URL || 'http://127.0.0.1:8081';
const key = process.env.TERBAYAR_KEY;

// submit sends a payment once and returns what to do next:
//
//   accepted   it will be sent to the gateway; answer has its status
//   refused    nothing was done, and sending the same again does not help: manual work
//   retry      it may or may not be recorded: send the same text again, after so many seconds
//
// wait is how long Terbayar may wait for what the customer needs in order to pay, in seconds.
export async function submit(id, text, wait) {
  let response, answer;
  try {
    response = await fetch(`${url}/v1/payments${wait ? `?wait=${wait}s` : ''}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...(key && { Authorization: `Bearer ${key}` }) },
      body: text,
      redirect: 'error',
      signal: AbortSignal.timeout((wait + 20) * 1000), // longer than the wait
    });
    answer = await response.json();
  } catch (err) {
    // No answer, or not all of it. The payment may be recorded.
    return { next: 'retry', detail: `no answer: ${err.cause?.message ?? err.message}` };
  }
  // A proxy in between may answer with any status, so the answer must be Terbayar's own.
  const problem = response.headers.get('content-type') === 'application/problem+json';
  const detail = [response.status, answer?.detail, ...(answer?.errors ?? []).map((e) => `${e.field}: ${e.detail}`)].join(' ');
  switch (response.status) {
    case 200: // duplicate: an earlier try was recorded
    case 202: // enqueued
      if (answer.transaction_id === id) return { next: 'accepted', answer };
      break;
    case 400:
    case 409: // conflict: this id has other content
    case 413:
    case 415:
    case 422: // invalid: detail has every wrong field
      if (problem) return { next: 'refused', detail };
      break;
    case 401: // the key is wrong or has ended: an operator corrects it, meanwhile the order waits
    case 403:
      return { next: 'retry', after: 60, detail };
  }
  // 503, 500, 408, 429, and whatever a proxy answers.
  return { next: 'retry', after: Number(response.headers.get('retry-after')) || undefined, detail };
}
