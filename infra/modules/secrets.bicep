// The secrets that there can be: what signs stream tokens, and clients' keys. Apps read them by reference.

@description('The vault\'s name.')
param name string
@description('Where it is.')
param location string
@description('On every resource.')
param tags object
@description('Signs stream tokens; empty: there are none.')
@secure()
param streamTokenSecret string
@description('Keys of the container app\'s clients; empty: there are none.')
@secure()
param apiKeys string
@description('The identity that reads it.')
param principalId string

// Key Vault Secrets User
var userRole = '4633458b-17de-408a-b874-0445c86b69e6'

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: subscription().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
  }
}

resource tokens 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(streamTokenSecret)) {
  parent: vault
  name: 'stream-token-secrets'
  properties: { value: streamTokenSecret }
}

resource keys 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(apiKeys)) {
  parent: vault
  name: 'api-keys'
  properties: { value: apiKeys }
}

resource reads 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, principalId, userRole)
  scope: vault
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', userRole)
  }
}

// Where they are, not what they are; empty: nowhere. Without a version: a new one is taken by itself.
output streamTokenSecretUri string = empty(streamTokenSecret) ? '' : '${vault.properties.vaultUri}secrets/${tokens.name}'
output apiKeysUri string = empty(apiKeys) ? '' : '${vault.properties.vaultUri}secrets/${keys.name}'
