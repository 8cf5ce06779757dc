// Starts Swagger UI on the page's OpenAPI document. It asks no server but this one, and keeps keys in this tab's memory alone.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const main = document.getElementById("reference");
SwaggerUIBundle({
  domNode: main,
  url: main.dataset.document,
  validatorUrl: null, // Its badge would send the document's address to swagger.io.
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  showExtensions: false,
});
