/** A worker that packs masks, so that the page stays fluent meanwhile. */

addEventListener("message", async ({ data }) => {
  const packed = new Blob([data]).stream().pipeThrough(new CompressionStream("deflate"));
  const body = await new Response(packed).arrayBuffer();
  postMessage(body, [body]);
});
