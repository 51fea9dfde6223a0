// Stands in for Shopify's App Bridge, https://cdn.shopify.com/shopifycloud/app-bridge.js, in the devstore's admin frame.
// What an app gets of it here: shopify.config, shopify.idToken(), shopify.toast.show(), a fetch that sends an ID token
// to the app's own origin, navigation by <s-app-nav>, and the page that fetches an ID token for a document
// (`shopify-reload`). Everything goes to the page around the frame by postMessage.
(() => {
  const script = document.currentScript;
  const query = new URLSearchParams(location.search);
  const kept = (name) => {
    // Pages that the app links to have no query of Shopify's; App Bridge remembers the first one for the frame's life.
    const value = query.get(name) ?? sessionStorage.getItem(`devstore-${name}`);
    if (value !== null) sessionStorage.setItem(`devstore-${name}`, value);
    return value;
  };
  const config = {
    apiKey: script?.dataset.apiKey ?? document.querySelector("meta[name=shopify-api-key]")?.content,
    host: kept("host"),
    locale: kept("locale") ?? "en",
    shop: kept("shop"),
  };

  const waiting = new Map();
  let asked = 0;
  const say = (message) => parent.postMessage(message, "*");
  addEventListener("message", (event) => {
    if (event.source !== parent || event.data?.devstore !== "id-token") return;
    waiting.get(event.data.number)?.(event.data.token);
    waiting.delete(event.data.number);
  });
  const idToken = () => new Promise((resolve, reject) => {
    if (parent === window) {
      reject(new Error("App Bridge needs the admin's frame around the app"));
      return;
    }
    asked += 1;
    waiting.set(asked, resolve);
    say({devstore: "id-token", number: asked});
  });

  const plainFetch = window.fetch.bind(window);
  const authorised = async (input, init) => {
    const request = new Request(input, init);
    request.headers.set("Authorization", `Bearer ${await idToken()}`);
    return plainFetch(request);
  };
  window.fetch = async (input, init) => {
    const request = new Request(input, init);
    const own = new URL(request.url).origin === location.origin;
    if (!own || request.headers.has("Authorization") || parent === window) return plainFetch(request);
    const again = request.clone();
    const response = await authorised(request);
    const stale = response.status === 401 && response.headers.has("X-Shopify-Retry-Invalid-Session-Request");
    return stale ? authorised(again) : response;
  };

  const toasts = [];
  const show = (message) => {
    toasts.push(String(message));
    return String(toasts.length);
  };
  window.shopify = {config, idToken, toast: {show, hide: () => undefined}, environment: {embedded: parent !== window}};

  const reload = query.get("shopify-reload");
  if (reload !== null) {
    const target = new URL(reload, location.origin);
    if (target.origin === location.origin) {
      idToken().then((token) => {
        target.searchParams.set("id_token", token);
        location.replace(target);
      });
    }
    return;
  }

  const tellNavigation = () => {
    const links = [...document.querySelectorAll("s-app-nav a, ui-nav-menu a, s-app-nav s-link")]
      .map((link) => ({href: new URL(link.getAttribute("href"), location.href).href, label: link.textContent.trim()}));
    document.querySelectorAll("s-app-nav, ui-nav-menu").forEach((one) => { one.style.display = "none"; });
    if (links.length && parent !== window) say({devstore: "navigation", links});
  };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", tellNavigation);
  else tellNavigation();
})();
